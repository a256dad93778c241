package boltfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// filled is a file with several levels of pages, deletions and a large value, from many transactions.
type filled struct {
	data []byte
	now  map[string]map[string]string // by bucket and key
	ever map[stored]bool              // what any transaction stored
}

// stored is a key with one of the values that it had.
type stored struct{ key, value string }

// fill makes a file. Where its pages are is a little different each time: with FreelistMapType bbolt takes free ones in the order of a map.
func fill(t testing.TB, opts *bbolt.Options) filled {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bbolt.Open(path, 0o600, opts)
	if err != nil {
		t.Fatal(err)
	}
	want, ever := map[string]map[string]string{"a": {}, "b": {}, "small": {}}, map[stored]bool{}
	for round := range 8 {
		err := db.Update(func(tx *bbolt.Tx) error {
			for _, name := range []string{"a", "b", "small"} {
				kv := want[name]
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				for i := range 16 {
					key := fmt.Sprintf("%08d", (i*7919+round*104729)%5000)
					value := fmt.Sprintf("%s of round %d", key, round)
					switch {
					case name == "small" && i > 1:
						continue
					case name == "small":
						key = key[:1]
					case name == "b" && i == round:
						value = string(make([]byte, 9000))
					case i%3 == 0:
						delete(kv, key)
						if err := b.Delete([]byte(key)); err != nil {
							return err
						}
						continue
					}
					kv[key], ever[stored{key, value}] = value, true
					if err := b.Put([]byte(key), []byte(value)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return filled{data, want, ever}
}

func variants() map[string]*bbolt.Options {
	return map[string]*bbolt.Options{
		"free pages stored":     {PageSize: 1024, NoSync: true},
		"free pages not stored": {PageSize: 1024, NoSync: true, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	}
}

// Everything that bbolt stored is read.
func TestParse(t *testing.T) {
	for name, opts := range variants() {
		file := fill(t, opts)
		f, err := Parse(file.data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(f.Buckets) != len(file.now) || f.TxID < 8 {
			t.Errorf("%s: %d buckets after transaction %d", name, len(f.Buckets), f.TxID)
		}
		for b, kv := range file.now {
			if len(f.Buckets[b]) != len(kv) {
				t.Errorf("%s: bucket %s has %d values, want %d", name, b, len(f.Buckets[b]), len(kv))
			}
			for _, p := range f.Buckets[b] {
				if v, ok := kv[string(p.Key)]; !ok || v != string(p.Value) {
					t.Errorf("%s: bucket %s: %q is %.20q", name, b, p.Key, p.Value)
				}
			}
		}
	}
}

// A file that bbolt has only created is empty, of transaction 1.
func TestParseNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Read(path)
	if err != nil || len(f.Buckets) != 0 || f.TxID > 1 {
		t.Errorf("%+v, %v", f, err)
	}
}

// No flip makes Parse panic or hang. What it accepts has the keys and values that were stored, but for flips within one of those. Where free pages are not stored
// there is one more thing that Parse cannot see: a page number that becomes the one of a free page, which holds what was stored once.
func TestParseDamaged(t *testing.T) {
	for name, opts := range variants() {
		file := fill(t, opts)
		data := file.data
		refused, step := 0, 1+2*(len(data)/20000) // odd: all bits have their turn
		for at := 0; at < len(data); at += step {
			mask := byte(1) << (at % 8)
			if at%16 == 5 {
				mask = 0xff
			}
			data[at] ^= mask
			f, err := Parse(data)
			if err == nil {
				if wrong := file.wrong(f, opts.NoFreelistSync); wrong > 1 {
					t.Errorf("%s: byte %d ^ %#x: %d values differ", name, at, mask, wrong)
				}
			} else if refused++; !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: byte %d: %v", name, at, err)
			}
			data[at] ^= mask
		}
		if refused < 100 {
			t.Errorf("%s: only %d flips of %d were noticed", name, refused, len(data))
		}
		for cut := 0; cut < len(data); cut += 512 {
			if _, err := Parse(data[:cut]); err == nil && cut < len(data)/8 {
				t.Errorf("%s: %d of %d bytes are accepted", name, cut, len(data))
			}
		}
	}
}

// wrong counts the values that f has and the file has not; unless values of free pages may be there, also those that are missing.
// A bucket whose name is another does not count.
func (file filled) wrong(f *File, earlier bool) (n int) {
	for b, kv := range file.now {
		if _, ok := f.Buckets[b]; ok && !earlier {
			n += abs(len(kv) - len(f.Buckets[b]))
		}
		for _, p := range f.Buckets[b] {
			got := stored{string(p.Key), string(p.Value)}
			if v, ok := kv[got.key]; (!ok || v != got.value) && !(earlier && file.ever[got]) {
				n++
			}
		}
	}
	return n
}

func abs(n int) int { return max(n, -n) }

func FuzzParse(f *testing.F) {
	for _, opts := range variants() {
		f.Add(fill(f, opts).data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse(data); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}
