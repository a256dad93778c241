package broker

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// tripFS calls trip before operations on files.
type tripFS struct {
	vfs.FS
	trip func()
}

func (f tripFS) Open(name string) (vfs.File, error)      { f.trip(); return f.FS.Open(name) }
func (f tripFS) Create(name string) (vfs.File, error)    { f.trip(); return f.FS.Create(name) }
func (f tripFS) Stat(name string) (vfs.Info, error)      { f.trip(); return f.FS.Stat(name) }
func (f tripFS) ReadDir(name string) ([]vfs.Info, error) { f.trip(); return f.FS.ReadDir(name) }
func (f tripFS) MkdirAll(name string) error              { f.trip(); return f.FS.MkdirAll(name) }
func (f tripFS) Rename(oldName, newName string) error    { f.trip(); return f.FS.Rename(oldName, newName) }

// tripListener calls trip when somebody asks for its address or takes a connection.
type tripListener struct {
	net.Listener
	trip func()
}

func (l tripListener) Addr() net.Addr            { l.trip(); return l.Listener.Addr() }
func (l tripListener) Accept() (net.Conn, error) { l.trip(); return l.Listener.Accept() }

// listenLoopback listens on a port that is free.
func listenLoopback(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// TestStopWhileStarting stops a broker at one moment of its start after the other, until the start is through before that. Nothing is left behind: no goroutine, no lock on the
// data directory, which all of them share.
func TestStopWhileStarting(t *testing.T) {
	defer goleak.VerifyNone(t, append(left(), goleak.IgnoreCurrent())...)
	for name, stop := range map[string]func(*Broker){
		"Shutdown": func(b *Broker) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if err := b.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		},
		"Kill": (*Broker).Kill,
	} {
		dir, ended := t.TempDir(), 0
		for n := int64(1); ; n += 3 {
			var count atomic.Int64
			var b *Broker
			var stops sync.WaitGroup
			trip := func() {
				if count.Add(1) != n {
					return
				}
				stops.Go(func() { stop(b) })
				tick := time.NewTicker(time.Millisecond)
				defer tick.Stop()
				for b.life.goOn() == nil { // the start does not get ahead of the stop
					<-tick.C
				}
			}
			cfg := DefaultConfig()
			cfg.ID, cfg.DataDir, cfg.GossipAddr, cfg.KafkaAddr = 1, dir, "127.0.0.1:0", ""
			cfg.AdvertiseHost, cfg.BootstrapExpect, cfg.Timing.FastGossip = "127.0.0.1", 1, true
			cfg.Seams.FS, cfg.Seams.PartitionFS = tripFS{vfs.OS(), trip}, tripFS{vfs.OS(), trip}
			cfg.Seams.PeerListener, cfg.Seams.GRPCListener = tripListener{listenLoopback(t), trip}, tripListener{listenLoopback(t), trip}
			var err error
			if b, err = New(cfg); err != nil {
				t.Fatal(err)
			}
			err = b.Start(context.Background())
			tripped := count.Load() >= n
			if !tripped {
				stops.Go(func() { stop(b) })
			}
			stops.Wait()
			// Those that the start has not come to are still the test's.
			_, _ = cfg.Seams.PeerListener.Close(), cfg.Seams.GRPCListener.Close()
			switch {
			case errors.Is(err, ErrStopped):
				ended++
			case err != nil:
				t.Fatalf("%s at %d: %v", name, n, err)
			}
			if err := b.Start(context.Background()); !errors.Is(err, ErrStopped) {
				t.Errorf("%s at %d: started again: %v", name, n, err)
			}
			if !tripped || n > 60 {
				break
			}
		}
		if ended < 3 {
			t.Errorf("%s: only %d starts were ended", name, ended)
		}
	}
}
