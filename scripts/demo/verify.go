package main

import (
	"fmt"
	"sort"
)

// stored is a record as it was read back.
type stored struct {
	partition int32
	offset    int64
	timeMs    int64
	key, line string
}

// violations collects what is wrong; none means that all is well. It keeps the first few of them in words.
type violations struct {
	count int
	first []string
}

const violationsShown = 10

func (v *violations) add(format string, args ...any) {
	v.count++
	if len(v.first) < violationsShown {
		v.first = append(v.first, fmt.Sprintf(format, args...))
	}
}

// verifyLog compares the log, partition by partition in order of offsets, with the events of the source file:
//
//   - offsets are 0, 1, 2, ... in each partition: none missing, none twice;
//   - each key is in one partition only;
//   - the sequence of each key's records is the sequence of its events in the file: each once, in order, unchanged.
func verifyLog(events []event, partitions [][]stored) violations {
	var v violations
	want := map[string][]event{}
	for _, e := range events {
		want[e.key] = append(want[e.key], e)
	}
	home := map[string]int32{}
	seen := map[string]int{}
	for p, records := range partitions {
		for i, r := range records {
			if r.offset != int64(i) {
				v.add("partition %d: offset %d stands where %d should", p, r.offset, i)
			}
			if at, ok := home[r.key]; ok && at != r.partition {
				v.add("key %s is in partitions %d and %d", r.key, at, r.partition)
			}
			home[r.key] = r.partition
			v.compare(r, want[r.key], seen[r.key])
			seen[r.key]++
		}
	}
	for _, key := range sortedKeys(want) {
		if n := len(want[key]); seen[key] < n {
			v.add("key %s: %d of its %d events are missing", key, n-seen[key], n)
		}
	}
	return v
}

// compare checks that r is the i-th event of its key.
func (v *violations) compare(r stored, want []event, i int) {
	switch {
	case i >= len(want):
		v.add("partition %d offset %d: key %s has only %d events, this is one more", r.partition, r.offset, r.key, len(want))
	case r.line != want[i].line:
		v.add("partition %d offset %d: not event %d of key %s: %s", r.partition, r.offset, i+1, r.key, r.line)
	case r.timeMs != want[i].timeMs:
		v.add("partition %d offset %d: timestamp %d, want %d", r.partition, r.offset, r.timeMs, want[i].timeMs)
	}
}

func sortedKeys(m map[string][]event) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

// coverage is what a group of consumers was given.
type coverage struct {
	deliveries int // in all
	repeated   int // deliveries of records that had been delivered before
}

// verifyGroup checks that the group was given every record of the log at least once and nothing that is not in the log.
func verifyGroup(partitions [][]stored, delivered []stored) (coverage, violations) {
	var v violations
	c := coverage{deliveries: len(delivered)}
	times := make([][]int, len(partitions))
	for p := range partitions {
		times[p] = make([]int, len(partitions[p]))
	}
	for _, d := range delivered {
		if int(d.partition) >= len(partitions) || d.offset < 0 || d.offset >= int64(len(partitions[d.partition])) {
			v.add("the group was given partition %d offset %d, which is not in the log", d.partition, d.offset)
			continue
		}
		if partitions[d.partition][d.offset] != d {
			v.add("the group was given something else at partition %d offset %d than the log has", d.partition, d.offset)
		}
		times[d.partition][d.offset]++
		if times[d.partition][d.offset] > 1 {
			c.repeated++
		}
	}
	for p := range times {
		for offset, n := range times[p] {
			if n == 0 {
				v.add("the group was never given partition %d offset %d", p, offset)
			}
		}
	}
	return c, v
}

// verifyReplay checks that a replay gave exactly the records of the partition from the first that matches on.
func verifyReplay(records, replayed []stored, matches func(stored) bool) violations {
	var v violations
	from := sort.Search(len(records), func(i int) bool { return matches(records[i]) })
	want := records[from:]
	if len(want) != len(replayed) {
		v.add("the replay gave %d records, the log has %d from there on", len(replayed), len(want))
		return v
	}
	for i := range want {
		if want[i] != replayed[i] {
			v.add("the replay gave offset %d where %d was due", replayed[i].offset, want[i].offset)
		}
	}
	return v
}
