package partition

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// waitingStore has no space for a term while it is full, and waits for some until it is closed; then raft's goroutine ends, as with package stable.
type waitingStore struct {
	raft.StableStore
	full    atomic.Bool
	once    sync.Once
	waiting chan struct{} // closed when somebody waits
	closed  chan struct{}
}

// SetUint64 implements raft.StableStore.
func (w *waitingStore) SetUint64(key []byte, v uint64) error {
	if !w.full.Load() {
		return w.StableStore.SetUint64(key, v)
	}
	w.once.Do(func() { close(w.waiting) })
	<-w.closed
	runtime.Goexit()
	return nil
}

// Close ends the wait.
func (w *waitingStore) Close() error {
	close(w.closed)
	return nil
}

// TestBootstrapWithoutSpaceForTheTerm: who wants to stop a broker meanwhile need not wait for space.
func TestBootstrapWithoutSpaceForTheTerm(t *testing.T) {
	c := &cluster{t: t, addrs: map[raft.ServerAddress]string{}, cut: map[raft.ServerAddress]bool{}}
	t.Cleanup(c.shutdown)
	n := c.addNode(1)
	store := &waitingStore{StableStore: raft.NewInmemStore(), waiting: make(chan struct{}), closed: make(chan struct{})}
	c.change = append(c.change, func(cfg *Config) { cfg.Stable = store })
	n.start()
	store.full.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.rep.Bootstrap(ctx, []raft.Server{n.server}) }()
	<-store.waiting
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the bootstrap ended with: %v", err)
	}
	began := time.Now()
	ctx, cancel = context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := n.rep.Close(ctx); err != nil {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	n.rep = nil
}
