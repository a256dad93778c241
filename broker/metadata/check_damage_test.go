package metadata

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/flotilla-log/flotilla/partition/stable"
)

func entry(index, term uint64) *raft.Log {
	e := &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Appendf(nil, "command %d of term %d", index, term)}
	if index%3 == 0 {
		e.Extensions = []byte("extension")
	}
	return e
}

// content reads what a log says that it holds.
func content(t *testing.T, l *logStore) map[uint64]raft.Log {
	t.Helper()
	first, err := l.FirstIndex()
	if err != nil {
		t.Fatal(err)
	}
	last, err := l.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	out := map[uint64]raft.Log{}
	for i := max(first, 1); i <= last; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
		e.AppendedAt = time.Time{}
		out[i] = e
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// storedLog makes a log with entries in many commits, cut off at both ends, and returns the file.
func storedLog(t *testing.T) (dir string, data []byte, want map[uint64]raft.Log) {
	t.Helper()
	dir = t.TempDir()
	l, err := openLog(dir)
	must(t, err)
	for i := uint64(1); i <= 30; i += 2 {
		must(t, l.StoreLogs([]*raft.Log{entry(i, 1), entry(i+1, 1)}))
	}
	must(t, l.DeleteRange(25, 30)) // a conflict
	for i := uint64(25); i <= 40; i++ {
		must(t, l.StoreLog(entry(i, 2)))
	}
	must(t, l.DeleteRange(1, 5)) // a snapshot covers them
	want = content(t, l)
	if len(want) != 35 || !reflect.DeepEqual(want[27], *entry(27, 2)) || !reflect.DeepEqual(want[7], *entry(7, 1)) {
		t.Fatalf("the log holds %v", want)
	}
	must(t, l.Close())
	data, err = os.ReadFile(filepath.Join(dir, logFile))
	must(t, err)
	return dir, data, want
}

// Whatever byte of raft.db flips: the log is not opened, or holds what it held.
func TestEveryFlipInTheLog(t *testing.T) {
	dir, good, want := storedLog(t)
	refused := 0
	for at := 0; at < len(good); at += 11 { // that is odd: each bit has its turn
		if bytes.Equal(good[at&^63:at&^63+64], make([]byte, 64)) && at%50 != 0 {
			continue // the empty parts of pages, of which few are enough
		}
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		must(t, os.WriteFile(filepath.Join(dir, logFile), bad, 0o600))
		l, err := openLog(dir)
		if err != nil {
			if refused++; !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewerFormat) {
				t.Errorf("byte %d: %v", at, err)
			}
			continue
		}
		if got := content(t, l); !reflect.DeepEqual(got, want) {
			t.Errorf("byte %d: %v", at, got)
		}
		must(t, l.Close())
	}
	t.Logf("%d refused of some %d", refused, len(good)/11)
	if refused < 100 {
		t.Errorf("only %d flips were noticed", refused)
	}
}

// Entries that are lost at the end, or are those that a conflict had replaced, are noticed, though each of them is sound.
func TestLogOfThePast(t *testing.T) {
	for name, change := range map[string]func(b *raftboltdb.BoltStore) error{
		"end":     func(b *raftboltdb.BoltStore) error { return b.DeleteRange(40, 40) },
		"all":     func(b *raftboltdb.BoltStore) error { return b.DeleteRange(1, 40) },
		"middle":  func(b *raftboltdb.BoltStore) error { return b.DeleteRange(20, 20) },
		"earlier": func(b *raftboltdb.BoltStore) error { e, _ := withCheck(entry(26, 1), 0); return b.StoreLog(e) },
		"last":    func(b *raftboltdb.BoltStore) error { e, _ := withCheck(entry(40, 1), 0); return b.StoreLog(e) },
		"seal":    func(b *raftboltdb.BoltStore) error { return b.Set(sealKey, nil) },
	} {
		dir, _, _ := storedLog(t)
		b, err := raftboltdb.NewBoltStore(filepath.Join(dir, logFile))
		must(t, err)
		must(t, change(b))
		must(t, b.Close())
		if l, err := openLog(dir); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				must(t, l.Close())
			}
		}
	}
}

// A log of an earlier release, without checks and with a gap, is read and gets checks for what comes.
func TestLogWithoutChecks(t *testing.T) {
	dir := t.TempDir()
	b, err := raftboltdb.NewBoltStore(filepath.Join(dir, logFile))
	must(t, err)
	for _, i := range []uint64{3, 4, 9, 10} {
		must(t, b.StoreLog(entry(i, 1)))
	}
	must(t, b.Close())
	for round := range uint64(3) {
		l, err := openLog(dir)
		must(t, err)
		for _, i := range []uint64{3, 9, 10, 11, 12} {
			var e raft.Log
			if err := l.GetLog(i, &e); i <= 10+round && (err != nil || string(e.Data) != string(entry(i, 1).Data)) {
				t.Errorf("round %d: entry %d: %q, %v", round, i, e.Data, err)
			}
		}
		must(t, l.StoreLog(entry(11+round, 1)))
		must(t, l.Close())
	}
	// Cut back to before the first check, it has checks from there on.
	l, err := openLog(dir)
	must(t, err)
	must(t, l.DeleteRange(10, 13))
	must(t, l.StoreLog(entry(10, 2)))
	must(t, l.Close())
	l, err = openLog(dir)
	must(t, err)
	if l.seal != (sealed{10, 10, l.check}) {
		t.Errorf("seal %+v", l.seal)
	}
	must(t, l.Close())
}

// A write that reached the log and not its seal, and comes again, is no damage; neither are entries behind a gap that a snapshot has filled.
func TestLogGoesOn(t *testing.T) {
	dir := t.TempDir()
	l, err := openLog(dir)
	must(t, err)
	must(t, l.StoreLogs([]*raft.Log{entry(1, 1), entry(2, 1), entry(3, 1)}))
	must(t, l.StoreLogs([]*raft.Log{entry(2, 2)})) // raft believes that 2 and 3 failed
	must(t, l.Close())
	l, err = openLog(dir)
	must(t, err)
	if got := content(t, l); len(got) != 2 || got[2].Term != 2 {
		t.Errorf("%v", got)
	}
	must(t, l.StoreLog(entry(100, 3)))
	must(t, l.Close())
	l, err = openLog(dir)
	must(t, err)
	if got := content(t, l); len(got) != 1 || got[100].Term != 3 {
		t.Errorf("%v", got)
	}
	must(t, l.Close())
}

// An entry that rots while the log is open is not given out, and the node hears of it.
func TestDamageWhileOpen(t *testing.T) {
	l, err := openLog(t.TempDir())
	must(t, err)
	defer l.Close()
	must(t, l.StoreLog(entry(1, 1)))
	e, _ := withCheck(entry(1, 1), 0)
	e.Data[0] ^= 1
	must(t, l.LogBackend.StoreLog(e))
	var told error
	l.fail = func(err error) { told = err }
	if err := l.GetLog(1, e); !errors.Is(err, ErrDamaged) || !errors.Is(told, ErrDamaged) {
		t.Errorf("%v; told: %v", err, told)
	}
}

// Whatever byte of a snapshot's files flips: it is not used, or says what it said.
func TestEveryFlipInASnapshot(t *testing.T) {
	dir := t.TempDir()
	files, err := raft.NewFileSnapshotStore(dir, keepSnapshots, io.Discard)
	must(t, err)
	s, err := newCheckedSnapshots(files, hclog.NewNullLogger())
	must(t, err)
	conf := raft.Configuration{Servers: []raft.Server{{ID: "1-abc", Address: "1"}, {ID: "2-def", Address: "2", Suffrage: raft.Nonvoter}}}
	_, tr := raft.NewInmemTransport("")
	sink, err := s.Create(raft.SnapshotVersionMax, 77, 3, conf, 5, tr)
	must(t, err)
	state := []byte(`{"format_version":1}`)
	_, err = sink.Write(state)
	must(t, err)
	must(t, sink.Close())
	id := sink.ID()
	check := func() (string, error) {
		s, err := newCheckedSnapshots(files, hclog.NewNullLogger())
		if err != nil {
			return "", err
		}
		list, err := s.List()
		if err != nil || len(list) == 0 {
			return "", fmt.Errorf("list of %d, %w", len(list), err)
		}
		m, r, err := s.Open(id)
		if err != nil {
			return "", err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		c, _ := json.Marshal(m.Configuration)
		return fmt.Sprint(m.Index, m.Term, m.Size, string(c), m.ConfigurationIndex, string(data)), err
	}
	want, err := check()
	must(t, err)
	refused := 0
	for _, name := range []string{"meta.json", "state.bin"} {
		path := filepath.Join(dir, "snapshots", id, name)
		good, err := os.ReadFile(path)
		must(t, err)
		for at := range good {
			for bit := range 8 {
				bad := slices.Clone(good)
				bad[at] ^= 1 << bit
				must(t, os.WriteFile(path, bad, 0o600))
				got, err := check()
				if err == nil && got != want {
					t.Errorf("%s, byte %d, bit %d: %s", name, at, bit, got)
				}
				if err != nil {
					refused++
				}
			}
		}
		must(t, os.WriteFile(path, good, 0o600))
	}
	if refused < 1000 {
		t.Errorf("only %d flips were noticed", refused)
	}
	// A snapshot of an earlier release.
	old, err := files.Create(raft.SnapshotVersionMax, 99, 3, conf, 5, tr)
	must(t, err)
	_, err = old.Write(state)
	must(t, err)
	must(t, old.Close())
	_, r, err := s.Open(old.ID())
	must(t, err)
	data, err := io.ReadAll(r)
	if string(data) != string(state) || err != nil {
		t.Errorf("%q, %v", data, err)
	}
}

// damageNode stops a member, has its files changed, and wants it to refuse to start with an error that says what helps.
func damageNode(t *testing.T, want error, change func(n *testNode)) {
	t.Helper()
	c := newTestCluster(t, 1)
	c.bootstrap()
	c.register(1)
	n := c.nodes[1]
	c.eventually("the membership is on record", func() bool { return n.cfg.Identity.record().Member })
	n.stop()
	change(n)
	err := n.tryStart()
	if !errors.Is(err, want) || !bytes.Contains([]byte(err.Error()), []byte(remedy)) {
		t.Errorf("started, or with another error: %v", err)
	}
	if err == nil {
		n.stop()
	}
	n.Node = nil
}

func TestDamagedMembersDoNotStart(t *testing.T) {
	t.Run("no log", func(t *testing.T) {
		damageNode(t, ErrMetadataLost, func(n *testNode) { must(t, os.Remove(filepath.Join(n.dir, "metadata", logFile))) })
	})
	t.Run("no votes", func(t *testing.T) {
		damageNode(t, ErrMetadataLost, func(n *testNode) { must(t, os.Remove(filepath.Join(n.dir, "stable.db"))) })
	})
	t.Run("a damaged vote", func(t *testing.T) {
		damageNode(t, ErrDamaged, func(n *testNode) {
			path := filepath.Join(n.dir, "stable.db")
			good, err := os.ReadFile(path)
			must(t, err)
			key := []byte("LastVoteCand")
			for at := bytes.Index(good, key); at >= 0; { // pages that are free by now may have it too
				at += len(key)
				good[at+8] ^= 1 // behind two checks
				next := bytes.Index(good[at:], key)
				if next < 0 {
					break
				}
				at += next
			}
			must(t, os.WriteFile(path, good, 0o600))
			s, err := stable.Open(path)
			must(t, err)
			if s.Damaged(Group) == nil {
				t.Error("the vote is sound")
			}
			must(t, s.Close())
		})
	})
	t.Run("no snapshot", func(t *testing.T) {
		damageNode(t, ErrDamaged, func(n *testNode) {
			l, err := openLog(filepath.Join(n.dir, "metadata"))
			must(t, err)
			must(t, l.DeleteRange(1, 1))
			must(t, l.Close())
			must(t, os.RemoveAll(filepath.Join(n.dir, "metadata", "snapshots")))
		})
	})
}
