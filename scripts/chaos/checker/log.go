package checker

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

func (c *check) produces() {
	for i := range c.h.Produces {
		p := &c.h.Produces[i]
		l := c.log(p.Partition)
		l.sent[p.Value] = p
		if p.Outcome != history.OK || p.Offset == history.Unassigned {
			continue
		}
		c.saw(p.Partition, p.Offset, p.Value, "acknowledgement")
		if p.Expected != history.Unassigned && p.Expected != p.Offset {
			c.report(WrongCondition, "%s: %q asked for offset %d and was acknowledged at %d", p.Partition, p.Value, p.Expected, p.Offset)
		}
	}
}

// saw learns that a value is at an offset.
func (c *check) saw(p history.Partition, offset int64, value, who string) {
	l := c.log(p)
	if old, ok := l.at[offset]; !ok {
		l.at[offset] = value
	} else if old != value {
		c.report(Inconsistent, "%s offset %d: %q, and %q by %s", p, offset, old, value, who)
	}
	if old, ok := l.offsetOf[value]; !ok {
		l.offsetOf[value] = offset
	} else if old != offset && !l.mayRepeat(value, offset) {
		c.report(Duplicate, "%s: %q is at offset %d and, by %s, at %d", p, value, old, who, offset)
	}
}

// mayRepeat tells whether a value that is elsewhere already may be at this offset, too: it was sent often enough.
func (l *partitionLog) mayRepeat(value string, offset int64) bool {
	copies := l.copies[value]
	if slices.Contains(copies, offset) {
		return true
	}
	if sent := l.sent[value]; sent == nil || len(copies)+2 > sent.Sends {
		return false
	}
	l.copies[value] = append(copies, offset)
	return true
}

func (c *check) read(p history.Partition, r history.Read, who string) {
	c.saw(p, r.Offset, r.Value, who)
	sent := c.log(p).sent[r.Value]
	switch {
	case sent == nil:
		c.report(NeverSent, "%s offset %d: %q by %s", p, r.Offset, r.Value, who)
	case sent.Outcome == history.Failed:
		c.report(FailedWrite, "%s offset %d: %q by %s, which had failed at %s", p, r.Offset, r.Value, who, ms(sent.End))
	}
}

func (c *check) allReads() {
	for _, p := range c.h.Polls {
		for _, r := range p.Records {
			c.read(p.Partition, r, "session "+p.Session)
		}
	}
	for _, f := range c.h.Finals {
		for _, r := range f.Records {
			c.read(f.Partition, r, "the final reading")
		}
	}
	for _, rep := range c.h.Replicas {
		for i, r := range rep.Records {
			c.read(rep.Partition, r, fmt.Sprintf("the files of broker %d", rep.Broker))
			if i > 0 && r.Offset != rep.Records[i-1].Offset+1 {
				c.report(ReplicaGap, "%s, broker %d: offset %d after %d", rep.Partition, rep.Broker, r.Offset, rep.Records[i-1].Offset)
			}
		}
	}
}

// finals checks that what was acknowledged or read is there at the end, and that the log has no holes.
func (c *check) finals() {
	finals := map[history.Partition]history.Final{}
	for _, f := range c.h.Finals {
		finals[f.Partition] = f
	}
	for p, l := range c.logs {
		f, ok := finals[p]
		if !ok {
			c.report(NotRead, "%s", p)
			continue
		}
		c.finalOf(l, f)
	}
}

func (c *check) finalOf(l *partitionLog, f history.Final) {
	there := make(map[string]bool, len(f.Records))
	next := f.LogStart
	for _, r := range f.Records {
		if r.Offset != next {
			c.report(FinalGap, "%s: offset %d where %d should be", f.Partition, r.Offset, next)
		}
		next = r.Offset + 1
		there[r.Value] = true
	}
	for _, p := range l.sent {
		if p.Outcome == history.OK && !there[p.Value] && (p.Offset == history.Unassigned || p.Offset >= f.LogStart) {
			c.report(LostWrite, "%s: %q, acknowledged at %s with offset %d", f.Partition, p.Value, ms(p.End), p.Offset)
		}
	}
	for _, offset := range slices.Sorted(maps.Keys(l.at)) {
		if offset >= f.LogStart && !there[l.at[offset]] && l.sent[l.at[offset]] != nil && l.sent[l.at[offset]].Outcome != history.OK {
			c.report(LostWrite, "%s: %q was read at offset %d and is gone", f.Partition, l.at[offset], offset)
		}
	}
}

// orders checks that each producer's records are in the order in which it sent them. A record that was sent more than once counts where it is
// first, and only if it was acknowledged: what was given up by a producer that is not idempotent may arrive late.
func (c *check) orders() {
	for p, l := range c.logs {
		last := map[string]*history.Produce{}
		seen := map[string]bool{}
		for _, offset := range slices.Sorted(maps.Keys(l.at)) {
			sent := l.sent[l.at[offset]]
			if sent == nil || sent.Seq == 0 || sent.Sends > 1 && (seen[sent.Value] || sent.Outcome != history.OK) {
				continue
			}
			seen[sent.Value] = true
			if before := last[sent.Producer]; before != nil && before.Seq > sent.Seq {
				c.report(Reordered, "%s offset %d: %q comes after %q", p, offset, sent.Value, before.Value)
			}
			last[sent.Producer] = sent
		}
	}
}

// sends checks that a record which was sent after another one had been acknowledged is behind it, whoever sent them.
func (c *check) sends() {
	acked := map[history.Partition][]*history.Produce{}
	for i := range c.h.Produces {
		if p := &c.h.Produces[i]; p.Outcome == history.OK && p.Offset != history.Unassigned {
			acked[p.Partition] = append(acked[p.Partition], p)
		}
	}
	for p, byEnd := range acked {
		byStart := slices.Clone(byEnd)
		slices.SortFunc(byEnd, func(a, b *history.Produce) int { return cmp.Compare(a.End, b.End) })
		slices.SortFunc(byStart, func(a, b *history.Produce) int { return cmp.Compare(a.Start, b.Start) })
		var highest *history.Produce // of those acknowledged before the one that is looked at began
		for _, b := range byStart {
			for ; len(byEnd) > 0 && byEnd[0].End < b.Start; byEnd = byEnd[1:] {
				if highest == nil || byEnd[0].Offset > highest.Offset {
					highest = byEnd[0]
				}
			}
			if highest != nil && b.Offset <= highest.Offset {
				c.report(SentBefore, "%s: %q, sent at %s, is at offset %d; %q was acknowledged at %s with %d", p, b.Value, ms(b.Start), b.Offset, highest.Value, ms(highest.End), highest.Offset)
			}
		}
	}
}

// sessions checks that polls go forward, from one record to the next.
func (c *check) sessions() {
	type key struct {
		session   string
		partition history.Partition
	}
	polls := slices.Clone(c.h.Polls)
	slices.SortStableFunc(polls, func(a, b history.Poll) int { return cmp.Compare(a.End, b.End) })
	next := map[key]int64{}
	for _, p := range polls {
		k := key{p.Session, p.Partition}
		for _, r := range p.Records {
			want, ok := next[k]
			switch {
			case ok && r.Offset < want:
				c.report(NonMonotonic, "%s, session %s: offset %d after %d", p.Partition, p.Session, r.Offset, want-1)
			case ok && r.Offset > want:
				c.report(Skipped, "%s, session %s: offset %d after %d", p.Partition, p.Session, r.Offset, want-1)
			}
			next[k] = r.Offset + 1
		}
	}
}

// latests checks that the end of a partition, asked of its leader, is after all that was acknowledged before the question. Reads of the end
// must not go back either.
func (c *check) latests() {
	type event struct {
		at     int64
		offset int64 // the end as proven
	}
	proven := map[history.Partition][]event{}
	for _, p := range c.h.Produces {
		if p.Outcome == history.OK && p.Offset != history.Unassigned {
			proven[p.Partition] = append(proven[p.Partition], event{int64(p.End), p.Offset + 1})
		}
	}
	for _, l := range c.h.Latests {
		proven[l.Partition] = append(proven[l.Partition], event{int64(l.End), l.Offset})
	}
	for _, events := range proven {
		slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
		for i := 1; i < len(events); i++ {
			events[i].offset = max(events[i].offset, events[i-1].offset)
		}
	}
	for _, l := range c.h.Latests {
		events := proven[l.Partition]
		// All events that ended before the reading began.
		i, _ := slices.BinarySearchFunc(events, int64(l.Start), func(e event, at int64) int { return cmp.Compare(e.at, at) })
		if i > 0 && events[i-1].offset > l.Offset {
			c.report(StaleRead, "%s: the end was read as %d at %s to %s, but was at least %d already", l.Partition, l.Offset, ms(l.Start), ms(l.End), events[i-1].offset)
		}
	}
}
