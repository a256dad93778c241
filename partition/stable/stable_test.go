package stable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/partition/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func tempPath(t testing.TB) string { return filepath.Join(t.TempDir(), "stable.db") }

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-tick.C
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestGroupsAreApart(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	a, b := s.Group(1), s.Group(256)
	check(t, a.SetUint64([]byte(termKey), 5))
	check(t, b.SetUint64([]byte(termKey), 9))
	check(t, b.Set([]byte("LastVoteCand"), []byte("3")))
	check(t, s.Put(1, "existed", []byte{1}))
	check(t, s.Close())

	s = open(t, path)
	if term, err := s.Group(1).GetUint64([]byte(termKey)); term != 5 || err != nil {
		t.Errorf("group 1: term %d, %v", term, err)
	}
	if term, err := s.Group(256).GetUint64([]byte(termKey)); term != 9 || err != nil {
		t.Errorf("group 256: term %d, %v", term, err)
	}
	if _, err := s.Group(1).Get([]byte("LastVoteCand")); err == nil || err.Error() != "not found" {
		t.Errorf("a key that was never set: %v", err)
	}
	if v, err := s.Get(1, "existed"); string(v) != "\x01" || err != nil {
		t.Errorf("marker: %v, %v", v, err)
	}
	if v, _ := s.Get(256, "existed"); v != nil {
		t.Errorf("marker of another group: %v", v)
	}
	if got := s.Groups(); !reflect.DeepEqual(got, []transport.GroupID{1, 256}) {
		t.Errorf("groups %v", got)
	}
}

func TestDelete(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	for id := transport.GroupID(1); id <= 3; id++ {
		check(t, s.Group(id).SetUint64([]byte(termKey), uint64(id)))
		check(t, s.Put(id, "m", []byte("x")))
	}
	check(t, s.Delete(2))
	check(t, s.Delete(2)) // again: nothing to do
	for range 2 {
		if s.Has(2) || !s.Has(1) || !s.Has(3) {
			t.Errorf("has: %v %v %v", s.Has(1), s.Has(2), s.Has(3))
		}
		if v, _ := s.Get(2, "m"); v != nil {
			t.Errorf("a deleted group's marker: %q", v)
		}
		check(t, s.Close())
		s = open(t, path)
	}
}

// What Set returned from is in the file at that moment: a copy of the file, taken while the store is open, has it.
func TestSetIsWrittenThrough(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	for term := uint64(1); term < 30; term++ {
		check(t, s.Group(4).SetUint64([]byte(termKey), term))
		b, err := os.ReadFile(path)
		check(t, err)
		other := tempPath(t)
		check(t, os.WriteFile(other, b, 0o600))
		c, err := Open(other)
		check(t, err)
		if got, err := c.Group(4).GetUint64([]byte(termKey)); got != term || err != nil {
			t.Fatalf("term %d in the file, %v; %d was stored", got, err, term)
		}
		check(t, c.Close())
	}
}

// Writes that come while a commit is under way share the next one; values that are stored already cost none.
func TestGroupCommit(t *testing.T) {
	s := open(t, tempPath(t))
	var commits atomic.Int64
	gate := make(chan struct{})
	real := s.commit
	s.commit = func(b []*write) error {
		commits.Add(1)
		<-gate
		return real(b)
	}
	const n = 300
	var wg sync.WaitGroup
	storm := func() {
		for id := transport.GroupID(0); id < n; id++ {
			wg.Go(func() {
				if err := s.Group(id).SetUint64([]byte(termKey), uint64(id)+1); err != nil {
					t.Error(err)
				}
			})
		}
	}
	storm()
	eventually(t, "all writers waiting", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.pending) == n
	})
	close(gate)
	wg.Wait()
	if c := commits.Load(); c > 3 {
		t.Errorf("%d commits for %d writes that came at once", c, n)
	}
	before := commits.Load()
	storm()
	wg.Wait()
	if c := commits.Load(); c != before {
		t.Errorf("%d commits for values that are stored already", c-before)
	}
}

var errDiskFull = &fs.PathError{Op: "write", Path: "stable.db", Err: syscall.ENOSPC}

// faulty makes every commit fail with what fault returns, nil meaning that it works.
func faulty(s *Store, fault func() error) {
	real := s.commit
	s.commit = func(b []*write) error {
		if err := fault(); err != nil {
			return err
		}
		return real(b)
	}
	s.pause = func(int) time.Duration { return time.Millisecond }
}

// fate runs f on a goroutine and tells how it ended.
type fate struct {
	returned atomic.Bool
	done     chan struct{}
}

func run(f func()) *fate {
	ft := &fate{done: make(chan struct{})}
	go func() {
		defer close(ft.done)
		f()
		ft.returned.Store(true)
	}()
	return ft
}

func TestTermWaitsForSpaceVoteDoesNot(t *testing.T) {
	s := open(t, tempPath(t))
	var full atomic.Bool
	var attempts atomic.Int64
	faulty(s, func() error {
		attempts.Add(1)
		if full.Load() {
			return errDiskFull
		}
		return nil
	})
	full.Store(true)
	term := run(func() {
		if err := s.Group(1).SetUint64([]byte(termKey), 7); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "several attempts", func() bool { return attempts.Load() > 3 })
	if err := s.Group(2).SetUint64([]byte("LastVoteTerm"), 7); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a vote on a full disk: %v", err)
	}
	if s.Err() != nil {
		t.Errorf("a full disk failed the store: %v", s.Err())
	}
	if s.Has(1) {
		t.Error("a term that is not stored can be read")
	}
	full.Store(false)
	<-term.done
	if got, err := s.Group(1).GetUint64([]byte(termKey)); !term.returned.Load() || got != 7 || err != nil {
		t.Errorf("term %d, %v after space returned", got, err)
	}
}

// Closing the store or the group's handle ends a goroutine that waits for space, without returning into raft.
func TestCloseEndsWaiters(t *testing.T) {
	for _, which := range []string{"store", "group"} {
		t.Run(which, func(t *testing.T) {
			s := open(t, tempPath(t))
			faulty(s, func() error { return errDiskFull })
			g := s.Group(1)
			w := run(func() { _ = g.SetUint64([]byte(termKey), 7) })
			eventually(t, "a waiting writer", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.pending[1] == 1
			})
			if which == "store" {
				check(t, s.Close())
			} else {
				check(t, g.Close())
			}
			<-w.done
			if w.returned.Load() {
				t.Error("SetUint64 returned: raft would panic")
			}
		})
	}
}

func TestFailureIsFinal(t *testing.T) {
	var failures atomic.Int64
	s, err := OpenWith(Options{Path: tempPath(t), OnFailure: func(error) { failures.Add(1) }})
	check(t, err)
	t.Cleanup(func() { s.Close() })
	check(t, s.Group(1).SetUint64([]byte(termKey), 1))
	// The same errno, but out of an fsync: it does not name a write.
	faulty(s, func() error { return syscall.ENOSPC })
	w := run(func() { _ = s.Group(1).SetUint64([]byte(termKey), 2) })
	<-w.done
	if w.returned.Load() {
		t.Error("SetUint64 of a term returned after a failed sync")
	}
	if err := s.Group(2).Set([]byte("LastVoteCand"), []byte("x")); !errors.Is(err, ErrFailed) {
		t.Errorf("a vote after the failure: %v", err)
	}
	if err := s.Put(3, "m", nil); !errors.Is(err, ErrFailed) || !errors.Is(s.Err(), ErrFailed) {
		t.Errorf("a marker after the failure: %v, %v", err, s.Err())
	}
	if got, err := s.Group(1).GetUint64([]byte(termKey)); got != 1 || err != nil {
		t.Errorf("reads after the failure: %d, %v", got, err)
	}
	check(t, s.Close())
	if n := failures.Load(); n != 1 {
		t.Errorf("OnFailure was called %d times", n)
	}
}

func TestIsNoSpace(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{errDiskFull, true},
		{&fs.PathError{Op: "write", Err: syscall.EDQUOT}, true},
		{fmt.Errorf("tx: %w", errDiskFull), true},
		{&fs.PathError{Op: "write", Err: syscall.EIO}, false},
		{syscall.ENOSPC, false},
		{&fs.PathError{Op: "sync", Err: syscall.ENOSPC}, false},
	} {
		if got := isNoSpace(c.err); got != c.want {
			t.Errorf("%v: %v", c.err, got)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("locked", func(t *testing.T) {
		path := tempPath(t)
		open(t, path)
		if _, err := OpenWith(Options{Path: path, LockTimeout: 20 * time.Millisecond}); !errors.Is(err, ErrLocked) {
			t.Errorf("%v", err)
		}
	})
	t.Run("newer", func(t *testing.T) {
		path := tempPath(t)
		check(t, open(t, path).Close())
		db, err := bbolt.Open(path, 0o600, nil)
		check(t, err)
		check(t, db.Update(func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketFormat).Put(keyFormat, encodeFormat(formatVersion+1))
		}))
		check(t, db.Close())
		if _, err := Open(path); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("%v", err)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		path := tempPath(t)
		check(t, os.WriteFile(path, make([]byte, 64<<10), 0o600))
		if _, err := Open(path); !errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
	})
}

// A file with damaged or missing pages is refused or read, but never crashes the process and never invents a group.
func TestDamagedFile(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	for id := transport.GroupID(0); id < 200; id++ {
		check(t, s.Group(id).SetUint64([]byte(termKey), 3))
	}
	check(t, s.Close())
	good, err := os.ReadFile(path)
	check(t, err)
	page := os.Getpagesize()
	refused := 0
	for at := 0; at < len(good); at += page {
		for _, damage := range []string{"zero", "ones", "cut"} {
			b := append([]byte(nil), good...)
			switch damage {
			case "zero":
				clear(b[at : at+page])
			case "ones":
				for i := range page {
					b[at+i] = 0xff
				}
			case "cut":
				b = b[:at]
			}
			other := tempPath(t)
			check(t, os.WriteFile(other, b, 0o600))
			c, err := OpenWith(Options{Path: other, LockTimeout: 50 * time.Millisecond})
			if err != nil {
				refused++
				continue
			}
			for _, id := range c.Groups() {
				if id >= 200 {
					t.Errorf("page %d %s: group %d out of nothing", at/page, damage, id)
				}
			}
			check(t, c.Close())
		}
	}
	if refused == 0 {
		t.Error("no damage was noticed at all")
	}
}

// A raft instance runs on the store, and finds its term again.
func TestRaftOnStore(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	start := func() *raft.Raft {
		cfg := raft.DefaultConfig()
		cfg.LocalID, cfg.LogLevel = "1", "OFF"
		cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = 50*time.Millisecond, 50*time.Millisecond, 50*time.Millisecond
		logs := raft.NewInmemStore()
		addr, tr := raft.NewInmemTransport("")
		snaps := raft.NewInmemSnapshotStore()
		conf := raft.Configuration{Servers: []raft.Server{{ID: "1", Address: addr}}}
		if !s.Has(1) {
			check(t, raft.BootstrapCluster(cfg, logs, s.Group(1), snaps, tr, conf))
		}
		r, err := raft.NewRaft(cfg, &raft.MockFSM{}, logs, s.Group(1), snaps, tr)
		check(t, err)
		return r
	}
	r := start()
	eventually(t, "leadership", func() bool { return r.State() == raft.Leader })
	check(t, r.Shutdown().Error())
	term, err := s.Group(1).GetUint64([]byte(termKey))
	check(t, err)
	check(t, s.Close())
	s = open(t, path)
	r = start()
	if got := r.CurrentTerm(); got != term || got == 0 {
		t.Errorf("term %d after a restart, %d before", got, term)
	}
	check(t, r.Shutdown().Error())
}

// BenchmarkElectionStorm is what an election in each of 100 groups at once costs: a term, a vote's term and candidate.
func BenchmarkElectionStorm(b *testing.B) {
	const groups = 100
	storm := func(b *testing.B, store func(id int) raft.StableStore) {
		for n := range b.N {
			var wg sync.WaitGroup
			for id := range groups {
				wg.Go(func() {
					g := store(id)
					_ = g.SetUint64([]byte(termKey), uint64(n+1))
					_ = g.SetUint64([]byte("LastVoteTerm"), uint64(n+1))
					_ = g.Set([]byte("LastVoteCand"), fmt.Append(nil, n))
				})
			}
			wg.Wait()
		}
	}
	b.Run("shared-commits", func(b *testing.B) {
		s := open(b, tempPath(b))
		storm(b, func(id int) raft.StableStore { return s.Group(transport.GroupID(id)) })
	})
	b.Run("raft-boltdb", func(b *testing.B) {
		s, err := raftboltdb.NewBoltStore(tempPath(b))
		if err != nil {
			b.Fatal(err)
		}
		defer s.Close()
		storm(b, func(id int) raft.StableStore { return &prefixed{s, fmt.Sprintf("%08d", id)} })
	})
}

type prefixed struct {
	s *raftboltdb.BoltStore
	p string
}

func (p *prefixed) key(k []byte) []byte                { return append([]byte(p.p), k...) }
func (p *prefixed) Set(k, v []byte) error              { return p.s.Set(p.key(k), v) }
func (p *prefixed) Get(k []byte) ([]byte, error)       { return p.s.Get(p.key(k)) }
func (p *prefixed) SetUint64(k []byte, v uint64) error { return p.s.SetUint64(p.key(k), v) }
func (p *prefixed) GetUint64(k []byte) (uint64, error) { return p.s.GetUint64(p.key(k)) }
