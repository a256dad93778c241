package sim

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/flotilla-log/flotilla/raftlog/vfs"
	"github.com/flotilla-log/flotilla/scripts/chaos/checker"
)

// lazy stores acknowledged records without a sync: what everything here is there to notice.
var lazy = Plan{
	Name: "lazy", Founders: 3, Pace: 5 * milli, Window: 3 * second, Flush: "os",
	Steps: []Step{{At: 1 * second, Fault: "power-all", For: 50 * milli}, {At: 2 * second, Fault: "power-all", For: 50 * milli}},
}

// A cluster that acknowledges before its records are on disks fails at the first power failure of all brokers. Were it not so, the simulation would prove nothing. But it goes on
// afterwards, without them.
func TestLazyFlushIsNoticed(t *testing.T) {
	s := newSuite(t)
	var r Result
	for seed := range uint64(5) { // it is possible to lose nothing
		r, _ = s.run("lazy", seed+1)
		if slices.ContainsFunc(r.Problems, func(p string) bool { return strings.HasPrefix(p, "serving") }) {
			t.Errorf("it does not go on: %v", r.Problems)
		}
		if strings.Contains(strings.Join(r.Problems, " "), string(checker.LostWrite)) {
			return
		}
	}
	t.Errorf("nobody noticed: %s, %v", r.Verdict, r.Problems)
}

func TestSeedDecidesThePlan(t *testing.T) {
	for seed := range uint64(500) {
		p := Random(seed)
		if !reflect.DeepEqual(p, Random(seed)) {
			t.Fatalf("seed %d makes different plans", seed)
		}
		damaged := map[string]bool{}
		for _, s := range p.Steps {
			if faults[s.Fault] == nil {
				t.Errorf("seed %d: there is no fault %q", seed, s.Fault)
			}
			if damages[s.Fault] || s.Fault == "wipe" || s.Fault == "read-error" || strings.HasPrefix(s.Fault, "rot-") {
				damaged[s.Victim] = true
			}
		}
		if len(damaged) > 1 {
			t.Errorf("seed %d damages %v: no system keeps records of which every copy is damaged", seed, damaged)
		}
	}
	if reflect.DeepEqual(Random(1).Steps, Random(2).Steps) {
		t.Error("all seeds make the same plan")
	}
}

// connect makes a network of two hosts and a connection between them.
func connect(t *testing.T) (n *Network, a, b net.Conn) {
	t.Helper()
	n = NewNetwork(rand.New(rand.NewPCG(1, 2)))
	ln, err := n.Listen("10.0.0.2:1")
	if err != nil {
		t.Fatal(err)
	}
	if a, err = n.Dial(context.Background(), "10.0.0.1", "10.0.0.2:1"); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return n, a, b
}

func say(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c net.Conn, text string) {
	t.Helper()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != text {
		t.Fatalf("heard %q, %v; want %q", buf, err, text)
	}
}

func TestCutLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, b := connect(t)
		n.Change("10.0.0.1", "10.0.0.2", func(s *linkState) { s.cut = true })
		say(t, a, "one")
		say(t, b, "back")
		hear(t, a, "back") // the other way is whole
		_ = b.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("something came over a cut link: %v", err)
		}
		_ = b.SetReadDeadline(time.Time{})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if _, err := n.Dial(ctx, "10.0.0.2", "10.0.0.1:1"); err == nil {
			t.Error("connected over a cut link")
		}
		n.Heal()
		hear(t, b, "one")
		_ = a.Close()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
		_ = b.Close()
	})
}

func TestPowerAndProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, a, _ := connect(t)
		n.Crash("10.0.0.2", true)
		say(t, a, "into the dark")
		_ = a.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a host without power said something: %v", err)
		}
		n.PowerOn("10.0.0.2")
		_ = a.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a host that forgot the connection did not reset it: %v", err)
		}
		_ = a.Close()
		n, a, _ = connect(t)
		n.Crash("10.0.0.2", false)
		_ = a.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := a.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the end of a process was not noticed: %v", err)
		}
		_ = a.Close()
	})
}

// A power failure in the middle of a sync loses what was to be synced, and nothing of an earlier life reaches the disk afterwards.
func TestLivesOfADisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := NewDisk(rand.New(rand.NewPCG(1, 2)))
		l := &life{Disk: d}
		files := &lifeFS{FS: d.faults, l: l, slow: true}
		if err := files.MkdirAll(dataDir); err != nil {
			t.Fatal(err)
		}
		f, err := files.Create(dataDir + "/x")
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(f.Sync(), files.SyncDir(dataDir)); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("lost"), 0); err != nil {
			t.Fatal(err)
		}
		d.SetSlow(1000, 1000)
		done := make(chan error)
		go func() { done <- f.Datasync() }()
		time.Sleep(500 * time.Millisecond)
		l.ended.Store(true)
		d.mem.Crash(nil)
		if err := <-done; !errors.Is(err, vfs.ErrCrashed) {
			t.Errorf("the sync that the power failure struck: %v", err)
		}
		if err := files.Remove(dataDir + "/x"); !errors.Is(err, vfs.ErrCrashed) {
			t.Errorf("the earlier life removes a file: %v", err)
		}
		info, err := d.mem.Stat(dataDir + "/x")
		if err != nil || info.Size != 0 {
			t.Errorf("after the crash: %v, %v", info, err)
		}
	})
}
