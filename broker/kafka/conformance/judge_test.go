package conformance

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// keys is how many keys the records have: record i has key(i) and value(i).
const keys = 17

func key(i int) string   { return fmt.Sprintf("key-%d", i%keys) }
func value(i int) string { return fmt.Sprintf("value-%06d", i) }

// number is the i of a value.
func number(value string) (int, error) {
	digits, ok := strings.CutPrefix(value, "value-")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q was never written", value)
	}
	return n, nil
}

// reading is a record as a client has shown it.
type reading struct {
	partition  int32
	offset     int64
	key, value string
}

func readingOf(r *kgo.Record) reading {
	return reading{r.Partition, r.Offset, string(r.Key), string(r.Value)}
}

func readingsOf(rs []*kgo.Record) []reading {
	var out []reading
	for _, r := range rs {
		out = append(out, readingOf(r))
	}
	return out
}

// complete says whether each of the records from to to-1 is there, with its key, and nothing that was never written.
func complete(rs []reading, from, to int) error {
	there := map[int]bool{}
	for _, r := range rs {
		i, err := number(r.value)
		if err != nil {
			return err
		}
		if r.key != key(i) {
			return fmt.Errorf("%s has key %q instead of %q", r.value, r.key, key(i))
		}
		there[i] = true
	}
	for i := from; i < to; i++ {
		if !there[i] {
			return fmt.Errorf("%s is missing: %d records, %d of them different", value(i), len(rs), len(there))
		}
	}
	return nil
}

// exactly says whether the records from to to-1 are there once each, and no other.
func exactly(rs []reading, from, to int) error {
	if err := complete(rs, from, to); err != nil {
		return err
	}
	times := map[string]int{}
	for _, r := range rs {
		if times[r.value]++; times[r.value] > 1 {
			return fmt.Errorf("%s is there more than once", r.value)
		}
	}
	if len(rs) != to-from {
		return fmt.Errorf("%d records instead of %d", len(rs), to-from)
	}
	return nil
}

// ordered says whether each key is in one partition, and its records in the order in which they were sent. The records of a partition must
// be in the order of their offsets.
func ordered(rs []reading) error {
	type last struct {
		partition int32
		number    int
	}
	seen := map[string]last{}
	for _, r := range rs {
		i, err := number(r.value)
		if err != nil {
			return err
		}
		if before, ok := seen[r.key]; ok {
			if before.partition != r.partition {
				return fmt.Errorf("%s is in partitions %d and %d", r.key, before.partition, r.partition)
			}
			if i <= before.number {
				return fmt.Errorf("partition %d: %s follows %s", r.partition, r.value, value(before.number))
			}
		}
		seen[r.key] = last{r.partition, i}
	}
	return nil
}

// readings are what the members of a group have read, in the order in which they showed it.
type readings struct {
	mu     sync.Mutex
	got    []reading
	errors []error
}

func (r *readings) add(rs ...reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, rs...)
}

func (r *readings) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, err)
}

// all returns what was read so far, by partition and offset, or the first error of a member.
func (r *readings) all() ([]reading, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.errors) > 0 {
		return nil, r.errors[0]
	}
	sorted := slices.Clone(r.got)
	slices.SortStableFunc(sorted, func(a, b reading) int {
		if a.partition != b.partition {
			return int(a.partition - b.partition)
		}
		return int(a.offset - b.offset)
	})
	return sorted, nil
}

// complete says whether the records from to to-1 were read.
func (r *readings) complete(from, to int) error {
	rs, err := r.all()
	if err != nil {
		return err
	}
	return complete(rs, from, to)
}

// exactly says whether the records from to to-1 were read once each, in order, and no other.
func (r *readings) exactly(from, to int) error {
	rs, err := r.all()
	if err != nil {
		return err
	}
	if err := exactly(rs, from, to); err != nil {
		return err
	}
	return ordered(rs)
}
