package conformance

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// version of a module that go.mod requires.
func version(t *testing.T, module string) string {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mod)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == module {
			return strings.TrimPrefix(f[1], "v")
		}
	}
	t.Fatalf("go.mod does not require %s", module)
	return ""
}

// perform does the operations of a stage in order, and says which worked.
func perform(s adminStage, how map[string]func() error) (did []string, err error) {
	for _, op := range s.operations {
		if failed := how[op](); failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", op, failed))
			continue
		}
		did = append(did, op)
	}
	return did, err
}

// acks counts acknowledgements, and keeps the first failure.
type acks struct {
	mu    sync.Mutex
	sent  int
	acked int
	err   error
}

func (a *acks) ack(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil && a.err == nil {
		a.err = err
	}
	if err == nil {
		a.acked++
	}
}

// verdict is called when nothing is under way any more.
func (a *acks) verdict() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err == nil && a.acked != a.sent {
		return fmt.Errorf("%d of %d records were acknowledged", a.acked, a.sent)
	}
	return a.err
}

// stopper is a member that a function stops.
type stopper func() error

func (s stopper) stop() error { return s() }

// expect is an error unless what is found is what is wanted.
func expect[T comparable](what string, found, wanted T) error {
	if found != wanted {
		return fmt.Errorf("%s: %v instead of %v", what, found, wanted)
	}
	return nil
}
