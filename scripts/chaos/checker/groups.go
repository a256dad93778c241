package checker

import (
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

type groupPartition struct {
	group     string
	partition history.Partition
}

// commits checks readings of committed offsets as those of a register: a reading must be of a commit that no other commit, begun after it ended,
// had replaced before the reading began. A commit whose outcome is unknown may take effect at any time after it began.
func (c *check) commits() {
	commits := map[groupPartition][]history.Commit{}
	for _, m := range c.h.Commits {
		if m.Outcome != history.Failed {
			k := groupPartition{m.Group, m.Partition}
			commits[k] = append(commits[k], m)
		}
	}
	for _, r := range c.h.Committed {
		c.committed(r, commits[groupPartition{r.Group, r.Partition}])
	}
}

func (c *check) committed(r history.Committed, commits []history.Commit) {
	newest := history.Commit{Offset: history.Unassigned, Span: history.Span{Start: -1}} // the one acknowledged before r that began last
	for _, m := range commits {
		if m.Outcome == history.OK && m.End < r.Start && m.Start > newest.Start {
			newest = m
		}
	}
	tried := r.Offset == history.Unassigned
	for _, m := range commits {
		if m.Offset != r.Offset || m.Start > r.End {
			continue
		}
		tried = true
		if m.Outcome == history.Unknown || m.End >= newest.Start {
			return
		}
	}
	if tried && newest.Offset == r.Offset {
		return
	}
	c.wrong[groupPartition{r.Group, r.Partition}] = true
	switch {
	case !tried:
		c.report(NeverCommitted, "group %s, %s: %d was read at %s", r.Group, r.Partition, r.Offset, ms(r.End))
	default:
		c.report(CommitWentBack, "group %s, %s: %d was read at %s after %d had been committed", r.Group, r.Partition, r.Offset, ms(r.End), newest.Offset)
	}
}

// owners checks that in one generation a partition has one owner.
func (c *check) owners() {
	type key struct {
		groupPartition
		generation int32
	}
	owner := map[key]string{}
	for _, a := range c.h.Assigns {
		k := key{groupPartition{a.Group, a.Partition}, a.Generation}
		if old, ok := owner[k]; ok && old != a.Member {
			c.report(TwoOwners, "group %s generation %d, %s: %s and %s", a.Group, a.Generation, a.Partition, old, a.Member)
		}
		owner[k] = a.Member
	}
}

// groupReads checks that a group has read, in one of its sessions, all that lies below what it committed.
func (c *check) groupReads() {
	committed := map[groupPartition]int64{}
	for _, m := range c.h.Commits {
		if k := (groupPartition{m.Group, m.Partition}); m.Outcome == history.OK {
			committed[k] = max(committed[k], m.Offset)
		}
	}
	read := map[groupPartition]map[int64]bool{}
	for _, p := range c.h.Polls {
		k := groupPartition{p.Group, p.Partition}
		if read[k] == nil {
			read[k] = map[int64]bool{}
		}
		for _, r := range p.Records {
			read[k][r.Offset] = true
		}
	}
	for _, f := range c.h.Finals {
		for k, end := range committed {
			for _, r := range f.Records {
				if k.partition == f.Partition && r.Offset < end && !read[k][r.Offset] {
					c.report(Skipped, "group %s, %s: offset %d was committed as read (%d) and no member read it", k.group, k.partition, r.Offset, end)
				}
			}
		}
	}
}
