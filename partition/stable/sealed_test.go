package stable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// readable is all that a store answers, by group and key; damaged groups answer with errors, which are left out.
func readable(t testing.TB, s *Store, groups int) map[string]string {
	t.Helper()
	out := map[string]string{}
	for id := range transport.GroupID(groups) {
		g := s.Group(id)
		for _, key := range []string{termKey, "LastVoteTerm", "LastVoteCand"} {
			v, err := g.Get([]byte(key))
			switch {
			case err == nil:
				out[fmt.Sprint(id, key)] = string(v)
			case errors.Is(err, ErrDamaged) != (s.Damaged(id) != nil), errors.Is(err, ErrDamaged) != (g.Damaged() != nil):
				t.Errorf("group %d, %s: %v, damaged: %v", id, key, err, s.Damaged(id))
			case !errors.Is(err, ErrDamaged):
				out[fmt.Sprint(id, key)] = err.Error()
			}
		}
		if v, err := s.Get(id, "replica"); err == nil {
			out[fmt.Sprint(id, "replica")] = string(v)
		}
	}
	return out
}

const fewGroups = 12

// fillSmall makes a file in several commits, with values replaced and deleted.
func fillSmall(t testing.TB) (path string, data []byte, want map[string]string) {
	t.Helper()
	path = tempPath(t)
	s := open(t, path)
	for round := range uint64(3) {
		for id := range transport.GroupID(fewGroups) {
			g := s.Group(id)
			check(t, s.Put(id, "replica", fmt.Append(nil, "1-abc-", id)))
			check(t, g.SetUint64([]byte(termKey), uint64(id)+round))
			check(t, g.SetUint64([]byte("LastVoteTerm"), uint64(id)+round))
			check(t, g.Set([]byte("LastVoteCand"), fmt.Append(nil, "candidate-", round)))
		}
	}
	check(t, s.Delete(3))
	want = readable(t, s, fewGroups)
	check(t, s.Close())
	data, err := os.ReadFile(path)
	check(t, err)
	return path, data, want
}

// Whatever byte of the file flips: the store says so and does not open, or it names a group whose values it then does not give, or nothing has changed. It never
// answers anything else than what was stored, neither at once nor after it has gone on writing.
func TestEveryFlip(t *testing.T) {
	path, good, want := fillSmall(t)
	var refused, condemned, harmless int
	for at := 0; at < len(good); at += 7 { // that is odd: each bit has its turn
		mask := byte(1) << (at % 8)
		bad := slices.Clone(good)
		bad[at] ^= mask
		if used := at < 2*os.Getpagesize() || !bytes.Equal(bad[at&^63:at&^63+64], make([]byte, 64)); !used && at%50 != 0 {
			continue // the empty parts of pages, of which few are enough
		}
		check(t, os.WriteFile(path, bad, 0o600))
		s, err := OpenWith(Options{Path: path, LockTimeout: time.Second})
		if err != nil {
			if refused++; !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewerFormat) {
				t.Errorf("byte %d ^ %#x: %v", at, mask, err)
			}
			continue
		}
		left := compare(t, fmt.Sprintf("byte %d ^ %#x", at, mask), s, want)
		if left == len(want) {
			harmless++
		} else {
			condemned++
		}
		if at%41 == 0 { // each of these costs a sync
			goOn(t, fmt.Sprintf("byte %d ^ %#x, later", at, mask), s, path, want)
		} else {
			check(t, s.Close())
		}
	}
	t.Logf("of the flips %d are refused, %d condemn a group, %d change nothing", refused, condemned, harmless)
	if refused < 90 || condemned < 15 {
		t.Errorf("refused %d, condemned %d", refused, condemned)
	}
}

// compare checks that the store answers nothing but what was stored, and says how much that is.
func compare(t *testing.T, what string, s *Store, want map[string]string) int {
	t.Helper()
	got := readable(t, s, fewGroups)
	damaged := 0
	for id := range transport.GroupID(fewGroups) {
		if s.Damaged(id) != nil {
			damaged++
		}
	}
	if damaged > 1 || len(got)+4*damaged != len(want) {
		t.Errorf("%s: %d values of %d, %d groups damaged", what, len(got), len(want), damaged)
	}
	for k, v := range got {
		if want[k] != v {
			t.Errorf("%s: %s is %q, was stored as %q", what, k, v, want[k])
		}
	}
	return len(got)
}

// goOn has the store discard a damaged group and write something, and looks at it again.
func goOn(t *testing.T, what string, s *Store, path string, want map[string]string) {
	t.Helper()
	left := readable(t, s, fewGroups)
	for id := range transport.GroupID(fewGroups) {
		if s.Damaged(id) == nil {
			continue
		}
		if err := s.Group(id).SetUint64([]byte("LastVoteTerm"), 99); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: a vote of a damaged group: %v", what, err)
		}
		check(t, s.Replace(id, "replica", []byte("another")))
		if v, err := s.Get(id, "replica"); string(v) != "another" || err != nil {
			t.Errorf("%s: %q, %v after replacing", what, v, err)
		}
		check(t, s.Delete(id))
	}
	check(t, s.Group(100).SetUint64([]byte(termKey), 1))
	check(t, s.Close())
	s, err := Open(path)
	if err != nil {
		t.Errorf("%s: %v", what, err)
		return
	}
	for k, v := range readable(t, s, fewGroups) {
		if old, ok := left[k]; ok && old != v || !ok && v != "not found" && v != "" {
			t.Errorf("%s: %s is %q, was stored as %q", what, k, v, want[k])
		}
	}
	check(t, s.Close())
}

// A valid page of the past in the place of the newest one, as a damaged page number leads to, is noticed.
func TestEarlierValues(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	check(t, s.Group(1).SetUint64([]byte("LastVoteTerm"), 5))
	check(t, s.Group(1).SetUint64([]byte("LastVoteTerm"), 6))
	check(t, s.Close())
	db, err := bbolt.Open(path, 0o600, nil)
	check(t, err)
	key := fileKey(1, "LastVoteTerm")
	check(t, db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketConf).Put(key, seal(bucketConf, key, binary.BigEndian.AppendUint64(nil, 5)))
	}))
	check(t, db.Close())
	if _, err := Open(path); !errors.Is(err, ErrDamaged) {
		t.Errorf("a vote of the past: %v", err)
	}
}

// What an earlier release wrote, without checks, is read and has them from then on.
func TestFormat1(t *testing.T) {
	path := tempPath(t)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{FreelistType: bbolt.FreelistMapType})
	check(t, err)
	check(t, db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketConf, bucketMarkers, bucketFormat} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		check(t, tx.Bucket(bucketConf).Put(fileKey(4, termKey), binary.BigEndian.AppendUint64(nil, 77)))
		check(t, tx.Bucket(bucketMarkers).Put(fileKey(4, "replica"), []byte("1-abc-1")))
		return tx.Bucket(bucketFormat).Put(keyFormat, []byte{0, 1})
	}))
	check(t, db.Close())
	for range 2 {
		s := open(t, path)
		term, err := s.Group(4).GetUint64([]byte(termKey))
		marker, err2 := s.Get(4, "replica")
		if term != 77 || string(marker) != "1-abc-1" || err != nil || err2 != nil {
			t.Errorf("term %d, marker %q, %v, %v", term, marker, err, err2)
		}
		check(t, s.Close())
	}
	c, err := readContent(path)
	check(t, err)
	if c.format != formatVersion {
		t.Errorf("format %d", c.format)
	}
}

// raft does not start on a damaged term, whatever else is intact.
func TestRaftRefusesDamage(t *testing.T) {
	path := tempPath(t)
	s := open(t, path)
	check(t, s.Group(1).SetUint64([]byte(termKey), 0x1122334455))
	check(t, s.Close())
	data, err := os.ReadFile(path)
	check(t, err)
	// In pages that are free by now the term may stand too.
	for at := 0; ; at++ {
		i := bytes.Index(data[at:], binary.BigEndian.AppendUint64(nil, 0x1122334455))
		if i < 0 {
			break
		}
		at += i
		data[at+7] ^= 1
	}
	check(t, os.WriteFile(path, data, 0o600))
	s = open(t, path)
	cfg := raft.DefaultConfig()
	cfg.LocalID, cfg.LogLevel = "1", "OFF"
	_, tr := raft.NewInmemTransport("")
	if r, err := raft.NewRaft(cfg, &raft.MockFSM{}, raft.NewInmemStore(), s.Group(1), raft.NewInmemSnapshotStore(), tr); err == nil || !strings.Contains(err.Error(), ErrDamaged.Error()) {
		t.Errorf("%v", err)
		if err == nil {
			check(t, r.Shutdown().Error())
		}
	}
}

// memBackend is a Backend.
type memBackend map[transport.GroupID]map[string][]byte

func (m memBackend) Load() (out []Change, err error) {
	for g, kv := range m {
		for k, v := range kv {
			out = append(out, Change{Group: g, Key: k, Value: v})
		}
	}
	return out, nil
}

func (m memBackend) Commit(changes []Change) error {
	for _, c := range changes {
		if c.Delete {
			delete(m, c.Group)
			continue
		}
		if m[c.Group] == nil {
			m[c.Group] = map[string][]byte{}
		}
		m[c.Group][c.Key] = bytes.Clone(c.Value)
	}
	return nil
}

func (m memBackend) Close() error { return nil }

// Values that a Backend keeps are checked as those in a file are.
func TestBackendDamaged(t *testing.T) {
	m := memBackend{}
	s, err := OpenWith(Options{Backend: m})
	check(t, err)
	check(t, s.Group(1).SetUint64([]byte(termKey), 5))
	check(t, s.Group(2).SetUint64([]byte(termKey), 6))
	check(t, s.Close())
	for at := range m[1][cacheKey(bucketConf, termKey)] {
		v := m[1][cacheKey(bucketConf, termKey)]
		v[at] ^= 4
		s, err := OpenWith(Options{Backend: m})
		if at < 4 {
			if !errors.Is(err, ErrDamaged) {
				t.Errorf("byte %d: %v", at, err)
			}
		} else if check(t, err); s.Damaged(1) == nil || s.Damaged(2) != nil {
			t.Errorf("byte %d: %v, %v", at, s.Damaged(1), s.Damaged(2))
		}
		if err == nil {
			check(t, s.Close())
		}
		v[at] ^= 4
	}
}
