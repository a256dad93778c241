package broker

import (
	"testing"

	"go.uber.org/goleak"
)

// left are goroutines that wait for hashicorp/raft v1.7.3 for ever. It never resolves the future of a proposal that is in its queue when it shuts down: whoever waits for the outcome is
// told by abandon, but the collector itself, and who waits for it, cannot be woken. Nor does it resolve that of a bootstrap when it could not store its term, and stands still.
func left() []goleak.Option {
	const module = "github.com/flotilla-log/flotilla/"
	var options []goleak.Option
	for _, f := range []string{"partition.(*sequencer).collect", "partition.(*sequencer).wait.func1", "partition.(*Replica).Bootstrap.func1", "broker/metadata.(*Node).bootstrapRaft.func1"} {
		options = append(options, goleak.IgnoreAnyFunction(module+f))
	}
	// memberlist does not wait, when it ends, for a probe of a broker that is down; it gives up after its timeout.
	return append(options, goleak.IgnoreAnyFunction("github.com/hashicorp/memberlist.(*Memberlist).probeNode"))
}

// Every goroutine that a broker started has ended when Shutdown or Kill has returned.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m, left()...) }
