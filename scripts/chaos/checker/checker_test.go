package checker

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

var (
	p0 = history.Partition{Topic: "t", ID: 0}
	p1 = history.Partition{Topic: "t", ID: 1}
)

func span(start, end int) history.Span {
	return history.Span{Start: time.Duration(start) * time.Millisecond, End: time.Duration(end) * time.Millisecond}
}

// good is a history without fault: five records sent by one producer to p0, acknowledged at 0 to 4 (the third one unknown and stored), read by a
// session and at the end, with a group that read and committed.
func good() *history.History {
	h := &history.History{}
	final := history.Final{Partition: p0}
	for i := range 5 {
		op := history.Produce{Span: span(10*i, 10*i+5), Producer: "a", Seq: int64(i + 1), Partition: p0, Value: fmt.Sprint("v", i), Offset: int64(i), Expected: -1}
		if i == 2 {
			op.Outcome, op.Offset = history.Unknown, history.Unassigned
		}
		h.Produces = append(h.Produces, op)
		final.Records = append(final.Records, history.Read{Offset: int64(i), Value: op.Value})
	}
	h.Produces = append(h.Produces, history.Produce{Span: span(1, 2), Partition: p0, Value: "refused", Outcome: history.Failed, Offset: -1, Expected: -1},
		history.Produce{Span: span(1, 2), Partition: p0, Value: "second", Outcome: history.Failed, Offset: -1, Expected: 7, Outbid: true})
	h.Finals = []history.Final{final}
	h.Polls = []history.Poll{
		{Span: span(20, 21), Session: "s", Group: "g", Partition: p0, Records: slices.Clone(final.Records[:2])},
		{Span: span(60, 61), Session: "s", Group: "g", Partition: p0, Records: slices.Clone(final.Records[2:])},
	}
	h.Latests = []history.Latest{{Span: span(6, 7), Partition: p0, Offset: 1}, {Span: span(70, 71), Partition: p0, Offset: 5}}
	h.Commits = []history.Commit{
		{Span: span(22, 23), Group: "g", Member: "m", Partition: p0, Offset: 2},
		{Span: span(62, 63), Group: "g", Member: "m", Partition: p0, Offset: 5},
	}
	h.Committed = []history.Committed{
		{Span: span(1, 2), Group: "g", Partition: p0, Offset: -1},
		{Span: span(30, 31), Group: "g", Partition: p0, Offset: 2},
		{Span: span(62, 64), Group: "g", Partition: p0, Offset: 2},
		{Span: span(70, 71), Group: "g", Partition: p0, Offset: 5},
	}
	h.Assigns = []history.Assign{{Group: "g", Generation: 1, Member: "m", Partition: p0}, {Group: "g", Generation: 2, Member: "n", Partition: p0}}
	h.Replicas = []history.Replica{{Broker: 1, Partition: p0, Records: slices.Clone(final.Records)}}
	h.Faults = []history.Fault{{Span: span(12, 34), Name: "kill"}}
	return h
}

func TestGoodHistory(t *testing.T) {
	r := Check(good(), Options{MinAcks: 4, MinDuring: 3})
	if !r.Good() {
		t.Fatalf("anomalies %v, invalid %q", r.Anomalies, r.Invalid)
	}
	want := Counts{Acked: 4, Failed: 1, Unknown: 1, Outbid: 1, During: 3, Reads: 5, Commits: 2, Generations: 2}
	if r.Counts != want {
		t.Errorf("counts %+v, want %+v", r.Counts, want)
	}
}

// TestAnomalies feeds each anomaly, made by one change of the good history, and expects that it is found and nothing else.
func TestAnomalies(t *testing.T) {
	tests := []struct {
		name  string
		want  []Kind
		spoil func(h *history.History)
	}{
		{"acknowledged record missing at the end", []Kind{LostWrite}, func(h *history.History) {
			h.Polls, h.Replicas, h.Commits, h.Committed = nil, nil, nil, nil
			h.Finals[0].Records = h.Finals[0].Records[:4]
		}},
		{"record with unknown outcome read and gone", []Kind{FinalGap, LostWrite}, func(h *history.History) {
			h.Finals[0].Records = slices.Delete(h.Finals[0].Records, 2, 3)
		}},
		{"acknowledged without an offset and missing", []Kind{LostWrite}, func(h *history.History) {
			h.Produces = append(h.Produces, history.Produce{Partition: p0, Value: "x", Offset: -1, Expected: -1})
		}},
		{"retry stored twice", []Kind{Duplicate}, func(h *history.History) {
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "v4"})
		}},
		{"sent twice and stored three times", []Kind{Duplicate}, func(h *history.History) {
			h.Produces[4].Sends = 2
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "v4"}, history.Read{Offset: 6, Value: "v4"})
		}},
		{"behind a record that was sent after its acknowledgement", []Kind{SentBefore}, func(h *history.History) {
			h.Produces[0].Span, h.Produces[1].Span = span(10, 15), span(0, 5)
			h.Produces[0].Seq, h.Produces[1].Seq, h.Latests = 0, 0, nil
		}},
		{"another producer's record stored before an acknowledged one", []Kind{SentBefore}, func(h *history.History) {
			h.Produces[3].Producer, h.Produces[3].Span, h.Produces[3].Seq = "b", span(60, 65), 1
		}},
		{"reordered, though the first of several copies counts", []Kind{Reordered}, func(h *history.History) {
			h.Produces[3].Seq, h.Produces[4].Seq = 5, 4
			h.Produces[3].Sends, h.Produces[4].Sends = 2, 2
			h.Produces[4].Span = h.Produces[3].Span
		}},
		{"reordered", []Kind{Reordered}, func(h *history.History) {
			h.Produces[3].Seq, h.Produces[4].Seq = 5, 4
		}},
		{"another value in a second read", []Kind{Duplicate, Inconsistent}, func(h *history.History) {
			h.Polls[0].Records[1].Value = "v0"
		}},
		{"two sessions read different values", []Kind{Duplicate, Inconsistent}, func(h *history.History) {
			other := history.Produce{Partition: p0, Value: "x", Outcome: history.Unknown, Offset: -1, Expected: -1}
			h.Produces = append(h.Produces, other)
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "x"})
			h.Polls = append(h.Polls, history.Poll{Span: span(70, 71), Session: "t", Partition: p0, Records: []history.Read{{Offset: 4, Value: "x"}}})
		}},
		{"two replicas with different values", []Kind{Inconsistent, NeverSent}, func(h *history.History) {
			h.Polls, h.Commits, h.Committed = nil, nil, nil
			second := history.Replica{Broker: 2, Partition: p0, Records: slices.Clone(h.Replicas[0].Records)}
			second.Records[2].Value = "other"
			h.Replicas = append(h.Replicas, second)
		}},
		{"replica that lacks a record in the middle", []Kind{ReplicaGap}, func(h *history.History) {
			h.Replicas[0].Records = slices.Delete(h.Replicas[0].Records, 2, 3)
		}},
		{"replica with another value", []Kind{Inconsistent, NeverSent}, func(h *history.History) {
			h.Replicas[0].Records[1].Value = "other"
		}},
		{"acknowledged at another offset than read", []Kind{Duplicate, Inconsistent, SentBefore}, func(h *history.History) {
			h.Produces[0].Offset, h.Produces[1].Offset = 1, 0
			h.Produces[0].Seq, h.Produces[1].Seq, h.Latests = 0, 0, nil
		}},
		{"poll goes back", []Kind{NonMonotonic}, func(h *history.History) {
			h.Polls[1].Records = append(h.Polls[1].Records, history.Read{Offset: 3, Value: "v3"})
		}},
		{"poll skips", []Kind{Skipped}, func(h *history.History) {
			h.Polls[1].Records = h.Polls[1].Records[1:]
		}},
		{"never sent", []Kind{NeverSent}, func(h *history.History) {
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "ghost"})
		}},
		{"value of another partition", []Kind{NeverSent, NotRead}, func(h *history.History) {
			h.Polls = append(h.Polls, history.Poll{Session: "u", Partition: p1, Records: []history.Read{{Offset: 0, Value: "v0"}}})
		}},
		{"refused and stored", []Kind{FailedWrite}, func(h *history.History) {
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "refused"})
		}},
		{"condition ignored", []Kind{WrongCondition}, func(h *history.History) { h.Produces[1].Expected = 0 }},
		{"hole", []Kind{FinalGap}, func(h *history.History) {
			h.Produces = append(h.Produces, history.Produce{Partition: p0, Value: "x", Outcome: history.Unknown, Offset: -1, Expected: -1})
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 6, Value: "x"})
		}},
		{"partition not read", []Kind{NotRead}, func(h *history.History) { h.Finals = nil }},
		{"stale end", []Kind{StaleRead}, func(h *history.History) { h.Latests[1].Offset = 4 }},
		{"end that goes back", []Kind{StaleRead}, func(h *history.History) {
			h.Latests = append(h.Latests, history.Latest{Span: span(80, 81), Partition: p0, Offset: 9}, history.Latest{Span: span(82, 83), Partition: p0, Offset: 8})
		}},
		{"commit went back", []Kind{CommitWentBack}, func(h *history.History) { h.Committed[3].Offset = 2 }},
		{"commit forgotten", []Kind{CommitWentBack}, func(h *history.History) { h.Committed[3].Offset = -1 }},
		{"commit of nobody", []Kind{NeverCommitted}, func(h *history.History) { h.Committed[3].Offset = 4 }},
		{"refused commit took effect", []Kind{NeverCommitted}, func(h *history.History) { h.Commits[1].Outcome = history.Failed }},
		{"commit read before it was made", []Kind{NeverCommitted}, func(h *history.History) { h.Committed[1].Offset = 5 }},
		{"readings in an order that no commits explain", []Kind{NotLinearizable}, func(h *history.History) {
			// Two commits at the same time: either may be the last one, but not first one, then the other, then the first one again.
			h.Commits = append(h.Commits, history.Commit{Span: span(62, 63), Group: "g", Member: "n", Partition: p0, Offset: 4})
			h.Committed = append(h.Committed[:3],
				history.Committed{Span: span(70, 71), Group: "g", Partition: p0, Offset: 5},
				history.Committed{Span: span(72, 73), Group: "g", Partition: p0, Offset: 4})
		}},
		{"commit with unknown outcome read, then gone", []Kind{NotLinearizable}, func(h *history.History) {
			h.Commits[1].Outcome = history.Unknown
			h.Committed = append(h.Committed, history.Committed{Span: span(80, 81), Group: "g", Partition: p0, Offset: 2})
		}},
		{"group commits what nobody read", []Kind{Skipped}, func(h *history.History) { h.Polls[1].Session, h.Polls[1].Records = "t", h.Polls[1].Records[2:] }},
		{"two owners by what they say and what the coordinator says", []Kind{TwoOwners}, func(h *history.History) {
			h.Assigns = append(h.Assigns, history.Assign{Group: "g", Generation: 1, Member: "m", Partition: p0}, history.Assign{Group: "g", Generation: 1, Member: "x", Partition: p0})
		}},
		{"two owners", []Kind{TwoOwners}, func(h *history.History) { h.Assigns[1].Generation = 1 }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := good()
			tc.spoil(h)
			r := Check(h, Options{})
			var kinds []Kind
			for _, a := range r.Anomalies {
				kinds = append(kinds, a.Kind)
			}
			slices.Sort(kinds)
			slices.Sort(tc.want)
			if kinds = slices.Compact(kinds); !slices.Equal(kinds, tc.want) {
				t.Errorf("found %v, want %v", r.Anomalies, tc.want)
			}
			if r.Verdict() != "FAIL" {
				t.Errorf("verdict %q", r.Verdict())
			}
		})
	}
}

// TestAllowed has what looks odd and is right.
func TestAllowed(t *testing.T) {
	tests := []struct {
		name   string
		change func(h *history.History)
	}{
		{"another session begins again", func(h *history.History) {
			h.Polls = append(h.Polls, history.Poll{Span: span(70, 71), Session: "t", Partition: p0, Records: []history.Read{{Offset: 1, Value: "v1"}}})
		}},
		{"sent twice and stored twice", func(h *history.History) {
			h.Produces[3].Sends = 2
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "v3"})
		}},
		{"given up and stored late", func(h *history.History) {
			h.Produces[2].Sends = 2
			h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: 5, Value: "v2"})
		}},
		{"records sent at the same time in another order", func(h *history.History) {
			h.Produces[3].Producer, h.Produces[3].Span = "b", h.Produces[4].Span
		}},
		{"unknown write that was not stored", func(h *history.History) {
			h.Produces = append(h.Produces, history.Produce{Partition: p0, Value: "x", Outcome: history.Unknown, Offset: -1, Expected: -1})
		}},
		{"records below the log start", func(h *history.History) {
			h.Finals[0].LogStart, h.Finals[0].Records = 2, h.Finals[0].Records[2:]
		}},
		{"unknown commit takes effect late", func(h *history.History) {
			h.Commits[0].Outcome = history.Unknown
			h.Committed = []history.Committed{h.Committed[0], {Span: span(64, 65), Group: "g", Partition: p0, Offset: 5}, {Span: span(70, 71), Group: "g", Partition: p0, Offset: 2}}
		}},
		{"commits at the same time", func(h *history.History) {
			h.Commits[0].End = h.Commits[1].Start
			h.Committed = []history.Committed{{Span: span(70, 71), Group: "g", Partition: p0, Offset: 2}}
		}},
		{"the end asked before the acknowledgement", func(h *history.History) { h.Latests[1] = history.Latest{Span: span(44, 99), Partition: p0, Offset: 4} }},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			h := good()
			tc.change(h)
			if r := Check(h, Options{}); !r.Good() {
				t.Errorf("found %v", r.Anomalies)
			}
		})
	}
}

// TestSearchIsBounded: a register whose operations cannot be put in order within the budget makes the run invalid, and does not hang it.
func TestSearchIsBounded(t *testing.T) {
	h := good()
	for i := range 30 {
		offset := int64(100 + i)
		h.Commits = append(h.Commits, history.Commit{Span: span(100, 200), Group: "g", Member: "m", Partition: p0, Offset: offset, Outcome: history.Unknown})
		// Read as one of those in no order that there is.
		for _, at := range []int{300 + i, 400 - i} {
			h.Committed = append(h.Committed, history.Committed{Span: span(at, at), Group: "g", Partition: p0, Offset: offset})
		}
	}
	r := Check(h, Options{})
	if r.Verdict() != "INVALID" {
		t.Errorf("verdict %s, %v; this is meant to need more steps than there are", r.Verdict(), r.Anomalies)
	}
}

func TestTooLittleIsInvalid(t *testing.T) {
	for _, o := range []Options{{MinAcks: 5}, {MinDuring: 4}} {
		if r := Check(good(), o); r.Good() || r.Verdict() != "INVALID" {
			t.Errorf("%+v: verdict %s", o, r.Verdict())
		}
	}
}

func TestManyAnomaliesAreBounded(t *testing.T) {
	h := good()
	for i := range 100 {
		h.Finals[0].Records = append(h.Finals[0].Records, history.Read{Offset: int64(5 + i), Value: fmt.Sprint("ghost", i)})
	}
	if n := len(Check(h, Options{}).Anomalies); n != maxPerKind+1 {
		t.Errorf("%d anomalies reported", n)
	}
}
