package broker_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Every goroutine that a broker started has ended when Shutdown or Kill has returned.
func TestMain(m *testing.M) {
	// hashicorp/raft v1.7.3 never resolves the future of a proposal that is in its queue when it shuts down. Whoever waits for the outcome is told by
	// abandon, but the collector itself, and who waits for it, cannot be woken.
	const seq = "github.com/flotilla-log/flotilla/partition.(*sequencer)."
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(seq+"collect"), goleak.IgnoreAnyFunction(seq+"wait.func1"))
}
