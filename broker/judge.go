package broker

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition"
	"github.com/flotilla-log/flotilla/raftlog"
)

// witness is one replica's word about its state.
type witness struct {
	broker   api.BrokerID
	serverID string
	voter    bool
	digest   partition.Digest
}

// verdict is what comparing witnesses comes to.
type verdict struct {
	compared int // indexes that at least two of them know
	// differs is the first index at which two of them differ; 0: they agree.
	differs raftlog.Index
	// agree are a quorum of voters with one state, and odd those whose state is another at the newest index that both know. Without such a quorum nobody is odd, and
	// split are all that know the index.
	agree, odd, split []witness
}

// judge compares replicas of one partition. quorum is how many voters must agree before anybody else is called wrong.
func judge(all []witness, quorum int) verdict {
	var v verdict
	settled := map[string]bool{} // whose newest comparison with a quorum is done
	indexes := knownIndexes(all)
	for _, i := range slices.Backward(indexes) {
		classes := classesAt(all, i)
		if known := len(slices.Concat(classes...)); known > 1 {
			v.compared++
		}
		if len(classes) > 1 {
			v.differs, v.split = i, slices.Concat(classes...)
		}
		if voters(classes) >= quorum {
			v.blame(classes, settled)
		}
	}
	if len(v.odd) > 0 {
		v.split = nil
	}
	return v
}

// blame finds who is not with the quorum, which is the first of the classes.
func (v *verdict) blame(classes [][]witness, settled map[string]bool) {
	for n, class := range classes {
		for _, w := range class {
			if settled[w.serverID] {
				continue
			}
			settled[w.serverID] = true
			if n > 0 {
				v.odd = append(v.odd, w)
			} else {
				v.agree = append(v.agree, w)
			}
		}
	}
}

func knownIndexes(all []witness) []raftlog.Index {
	var out []raftlog.Index
	for _, w := range all {
		for _, m := range append(slices.Clone(w.digest.Marks), w.digest.Now) {
			if m.Index > 0 {
				out = append(out, m.Index)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// classesAt groups those that know an index by their sum, the class with the most voters first.
func classesAt(all []witness, i raftlog.Index) [][]witness {
	var sums []uint64
	var classes [][]witness
	for _, w := range all {
		sum, ok := w.digest.At(i)
		if !ok {
			continue
		}
		n := slices.Index(sums, sum)
		if n < 0 {
			n, sums, classes = len(sums), append(sums, sum), append(classes, nil)
		}
		classes[n] = append(classes[n], w)
	}
	slices.SortStableFunc(classes, func(a, b []witness) int { return cmp.Compare(votersOf(b), votersOf(a)) })
	return classes
}

func votersOf(class []witness) (n int) {
	for _, w := range class {
		if w.voter {
			n++
		}
	}
	return n
}

func voters(classes [][]witness) int {
	if len(classes) == 0 {
		return 0
	}
	return votersOf(classes[0])
}

// String says what is wrong; empty: nothing.
func (v verdict) String() string {
	switch {
	case v.differs == 0:
		return ""
	case len(v.odd) > 0:
		return fmt.Sprintf("replicas differ from entry %d at the latest: %s, other than %s", v.differs, brokersOf(v.odd), brokersOf(v.agree))
	case len(v.agree) > 0:
		return fmt.Sprintf("replicas differed at entry %d (%s), and have the same state again now", v.differs, brokersOf(v.split))
	}
	return fmt.Sprintf("replicas differ from entry %d at the latest: %s, and no majority tells which of them is right", v.differs, brokersOf(v.split))
}

func brokersOf(list []witness) string {
	ids := make([]int, len(list))
	for i, w := range list {
		ids[i] = int(w.broker)
	}
	slices.Sort(ids)
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = fmt.Sprint(id)
	}
	if len(names) == 1 {
		return "the one on broker " + names[0]
	}
	return "those on brokers " + strings.Join(names, ", ")
}
