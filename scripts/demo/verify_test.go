package main

import (
	"slices"
	"testing"
)

func sampleLog() ([]event, [][]stored) {
	events := []event{{"A", "a1", 1}, {"B", "b1", 2}, {"A", "a2", 3}, {"C", "c1", 4}, {"A", "a2", 5}}
	return events, [][]stored{
		{{0, 0, 1, "A", "a1"}, {0, 1, 3, "A", "a2"}, {0, 2, 4, "C", "c1"}, {0, 3, 5, "A", "a2"}},
		{{1, 0, 2, "B", "b1"}},
	}
}

// TestVerifyLogFinds changes a good log in every way that matters: each must be found.
func TestVerifyLogFinds(t *testing.T) {
	cases := map[string]func(log [][]stored) [][]stored{
		"a record is lost": func(log [][]stored) [][]stored {
			log[0] = slices.Delete(log[0], 3, 4)
			return log
		},
		"a record is there twice": func(log [][]stored) [][]stored {
			again := log[0][3]
			again.offset = 4
			log[0] = append(log[0], again)
			return log
		},
		"a gap in the offsets": func(log [][]stored) [][]stored {
			log[1][0].offset = 7
			return log
		},
		"two records of a key are swapped": func(log [][]stored) [][]stored {
			log[0][0].line, log[0][1].line = log[0][1].line, log[0][0].line
			return log
		},
		"a record is changed": func(log [][]stored) [][]stored {
			log[1][0].line = "b2"
			return log
		},
		"a timestamp is changed": func(log [][]stored) [][]stored {
			log[1][0].timeMs++
			return log
		},
		"a record of a key that the file does not have": func(log [][]stored) [][]stored {
			log[1] = append(log[1], stored{1, 1, 9, "D", "d1"})
			return log
		},
		"a key in two partitions": func(log [][]stored) [][]stored {
			log[1] = append(log[1], stored{1, 1, 5, "A", "a2"})
			log[0] = log[0][:3]
			return log
		},
	}
	events, good := sampleLog()
	if v := verifyLog(events, good); v.count != 0 {
		t.Fatalf("a good log: %v", v.first)
	}
	for name, change := range cases {
		_, log := sampleLog()
		if v := verifyLog(events, change(log)); v.count == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}

func TestVerifyGroup(t *testing.T) {
	_, log := sampleLog()
	all := slices.Concat(log...)
	if c, v := verifyGroup(log, append(slices.Clone(all), all[2])); v.count != 0 || c.deliveries != 6 || c.repeated != 1 {
		t.Errorf("everything and one more: %+v %v", c, v.first)
	}
	if _, v := verifyGroup(log, all[1:]); v.count != 1 {
		t.Errorf("one record never delivered: %v", v.first)
	}
	if _, v := verifyGroup(log, append(slices.Clone(all), stored{1, 5, 0, "X", "x"})); v.count != 1 {
		t.Errorf("a record that is not in the log: %v", v.first)
	}
	changed := slices.Clone(all)
	changed[0].line = "other"
	if _, v := verifyGroup(log, changed); v.count != 1 {
		t.Errorf("a changed record: %v", v.first)
	}
}

func TestVerifyReplay(t *testing.T) {
	_, log := sampleLog()
	fromTwo := func(r stored) bool { return r.offset >= 2 }
	if v := verifyReplay(log[0], log[0][2:], fromTwo); v.count != 0 {
		t.Errorf("the right records: %v", v.first)
	}
	if v := verifyReplay(log[0], log[0][1:], fromTwo); v.count == 0 {
		t.Error("one record too many: not found")
	}
	if v := verifyReplay(log[0], []stored{log[0][2], log[0][2]}, fromTwo); v.count == 0 {
		t.Error("a record twice: not found")
	}
}

func TestLoadEvents(t *testing.T) {
	events, err := loadEvents()
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]int{}
	for i, e := range events {
		keys[e.key]++
		if i > 0 && e.timeMs < events[i-1].timeMs {
			t.Fatalf("event %d is earlier than the one before", i)
		}
	}
	if len(events) != 20000 || len(keys) != 220 || keys["DFW"] != 1103 {
		t.Errorf("%d events, %d keys, %d of DFW; want 20000, 220, 1103", len(events), len(keys), keys["DFW"])
	}
}
