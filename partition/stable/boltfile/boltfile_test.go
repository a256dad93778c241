package boltfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// fill makes a file with several levels of pages, deletions and a large value, in many transactions, and returns its bytes and what is in it.
func fill(t testing.TB, opts *bbolt.Options) ([]byte, map[string]map[string]string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.db")
	db, err := bbolt.Open(path, 0o600, opts)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{"a": {}, "b": {}, "small": {}}
	for round := range 8 {
		err := db.Update(func(tx *bbolt.Tx) error {
			for name, kv := range want {
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
					kv[key] = value
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
	return data, want
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
		data, want := fill(t, opts)
		f, err := Parse(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(f.Buckets) != len(want) || f.TxID < 8 {
			t.Errorf("%s: %d buckets after transaction %d", name, len(f.Buckets), f.TxID)
		}
		for b, kv := range want {
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

// No flip makes Parse panic or hang, and all that it accepts has the keys and values that were stored, but for flips within those.
func TestParseDamaged(t *testing.T) {
	for name, opts := range variants() {
		data, want := fill(t, opts)
		refused, step := 0, 1+2*(len(data)/20000) // odd: all bits have their turn
		for at := 0; at < len(data); at += step {
			mask := byte(1) << (at % 8)
			if at%16 == 5 {
				mask = 0xff
			}
			data[at] ^= mask
			f, err := Parse(data)
			if err == nil {
				wrong := 0
				for b, kv := range want {
					wrong += abs(len(kv) - len(f.Buckets[b]))
					for _, p := range f.Buckets[b] {
						if kv[string(p.Key)] != string(p.Value) {
							wrong++
						}
					}
				}
				if wrong > 1 && len(f.Buckets["a"]) > 0 && len(f.Buckets["b"]) > 0 && len(f.Buckets["small"]) > 0 {
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

func abs(n int) int { return max(n, -n) }

func FuzzParse(f *testing.F) {
	for _, opts := range variants() {
		data, _ := fill(f, opts)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if _, err := Parse(data); err != nil && !errors.Is(err, ErrDamaged) {
			t.Error(err)
		}
	})
}
