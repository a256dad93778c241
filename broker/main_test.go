package broker_test

import (
	"testing"

	"go.uber.org/goleak"
)

// Every goroutine that a broker started has ended when Shutdown or Kill has returned.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
