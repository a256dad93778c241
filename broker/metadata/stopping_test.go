package metadata

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// TestCloseDuringBootstrap: raft's main goroutine ends when the first term cannot be stored, and answers the bootstrap no more; the node closes all the same.
func TestCloseDuringBootstrap(t *testing.T) {
	c := newTestCluster(t, 7)
	n := c.nodes[7]
	if err := n.stable.Close(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- n.bootstrapRaft(context.Background(), []Founder{{n.cfg.Identity.Broker(), n.cfg.Identity.Incarnation()}})
	}()
	c.eventually("raft's main goroutine ends", func() bool {
		return errors.Is(n.raft.RemoveServer("nobody", 0, 200*time.Millisecond).Error(), raft.ErrEnqueueTimeout)
	})
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		n.stop()
	}()
	select {
	case err := <-done:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("the bootstrap ended with: %v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the bootstrap does not end with the node")
	}
	<-closed
}

// goneStore cannot store a term, which ends the goroutine that wants to, as in package stable.
type goneStore struct{ *raft.InmemStore }

func (goneStore) SetUint64([]byte, uint64) error {
	runtime.Goexit()
	return nil
}

// TestOpenWithoutVoteStore: whoever opens a node, a broker's main goroutine say, gets an error and goes on.
func TestOpenWithoutVoteStore(t *testing.T) {
	dir := t.TempDir()
	ident, err := OpenIdentity(dir, 7)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	trans, err := transport.New(transport.Config{Local: ServerAddress(7), ClusterID: ident.ClusterID, Learned: ident.Learn, Pledged: ident.Pledged, Listener: l,
		Resolve: func(raft.ServerAddress) (string, error) { return l.Addr().String(), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer trans.Close()
	failed := errors.New("the goroutine that opens the node has ended")
	done := make(chan error, 1)
	go func() {
		err := failed
		defer func() { done <- err }()
		for range 2 { // nothing is left open
			_, err = Open(Config{Dir: filepath.Join(dir, "metadata"), Identity: ident, Transport: trans, Stable: goneStore{raft.NewInmemStore()}})
		}
	}()
	if err := <-done; !errors.Is(err, errVotes) {
		t.Errorf("opened with: %v", err)
	}
}
