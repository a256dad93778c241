package broker

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/raftlog"
)

// says makes a witness: pairs of index and sum, the last of which is where it is now.
func says(id api.BrokerID, pairs ...uint64) witness {
	w := witness{broker: id, serverID: string(rune('a' + id)), voter: true}
	for i := 0; i+1 < len(pairs); i += 2 {
		m := partition.Mark{Index: raftlog.Index(pairs[i]), Sum: pairs[i+1]}
		if i+2 == len(pairs) {
			w.digest.Now = m
		} else {
			w.digest.Marks = append(w.digest.Marks, m)
		}
	}
	return w
}

func learner(w witness) witness {
	w.voter = false
	return w
}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		all    []witness
		quorum int
		odd    []api.BrokerID
		text   string
	}{
		"all agree":         {all: []witness{says(1, 64, 5, 70, 6), says(2, 64, 5, 70, 6), says(3, 64, 5)}, quorum: 2},
		"nothing in common": {all: []witness{says(1, 64, 5), says(2, 128, 6)}, quorum: 2},
		"one of three": {
			all: []witness{says(1, 64, 5, 128, 7, 130, 8), says(2, 64, 5, 128, 9), says(3, 128, 7)}, quorum: 2, odd: []api.BrokerID{2},
			text: "replicas differ from entry 128 at the latest: the one on broker 2, other than those on brokers 1, 3",
		},
		"the leader itself": {
			all: []witness{says(1, 64, 1, 128, 2), says(2, 64, 5, 128, 7), says(3, 64, 5, 128, 7)}, quorum: 2, odd: []api.BrokerID{1},
			text: "replicas differ from entry 64 at the latest: the one on broker 1, other than those on brokers 2, 3",
		},
		"one of two": {
			all: []witness{says(1, 64, 5), says(2, 64, 6)}, quorum: 2,
			text: "replicas differ from entry 64 at the latest: those on brokers 1, 2, and no majority tells which of them is right",
		},
		"the third is away": {
			all: []witness{says(1, 64, 5), says(2, 64, 6)}, quorum: 2,
			text: "replicas differ from entry 64 at the latest: those on brokers 1, 2, and no majority tells which of them is right",
		},
		"three states": {
			all: []witness{says(1, 64, 5), says(2, 64, 6), says(3, 64, 7)}, quorum: 2,
			text: "replicas differ from entry 64 at the latest: those on brokers 1, 2, 3, and no majority tells which of them is right",
		},
		"the majority is at another index": { // 1 and 3 agree at 64, where 2 has nothing; 2 differs at 128 from 1 alone
			all: []witness{says(1, 64, 5, 128, 7), says(2, 128, 9), says(3, 64, 5)}, quorum: 2,
			text: "replicas differed at entry 128 (those on brokers 1, 2), and have the same state again now",
		},
		"learners do not make a majority": {
			all: []witness{says(1, 64, 5), says(2, 64, 6), learner(says(3, 64, 6))}, quorum: 2,
			text: "replicas differ from entry 64 at the latest: those on brokers 1, 2, 3, and no majority tells which of them is right",
		},
		"a learner may be odd": {
			all: []witness{says(1, 64, 5), says(2, 64, 5), learner(says(3, 64, 6))}, quorum: 2, odd: []api.BrokerID{3},
			text: "replicas differ from entry 64 at the latest: the one on broker 3, other than those on brokers 1, 2",
		},
		"healed": {
			all: []witness{says(1, 64, 5, 128, 7), says(2, 64, 6, 128, 7), says(3, 64, 5, 128, 7)}, quorum: 2,
			text: "replicas differed at entry 64 (those on brokers 1, 2, 3), and have the same state again now",
		},
		"two of five": {
			all:    []witness{says(1, 64, 5), says(2, 64, 6), says(3, 64, 5), says(4, 64, 9), says(5, 64, 5)},
			quorum: 3, odd: []api.BrokerID{2, 4},
			text: "replicas differ from entry 64 at the latest: those on brokers 2, 4, other than those on brokers 1, 3, 5",
		},
	} {
		v := judge(c.all, c.quorum)
		var odd []api.BrokerID
		for _, w := range v.odd {
			odd = append(odd, w.broker)
		}
		if got := v.String(); got != c.text {
			t.Errorf("%s: %q, want %q", name, got, c.text)
		}
		if len(odd) != len(c.odd) || len(odd) > 0 && odd[0] != c.odd[0] {
			t.Errorf("%s: odd are %v, want %v", name, odd, c.odd)
		}
	}
}

func TestCondemnedIsBounded(t *testing.T) {
	var c condemned
	now := time.Unix(1_000_000, 0)
	for range condemnMax {
		if !c.allow(now) {
			t.Fatal("refused below the bound")
		}
	}
	if c.allow(now.Add(condemnWindow - 1)) {
		t.Error("allowed beyond the bound")
	}
	if !c.allow(now.Add(condemnWindow)) {
		t.Error("refused although the earlier ones are long ago")
	}
}
