package checker

import (
	"math"

	"github.com/anishathalye/porcupine"

	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// linearBudget bounds the search for an order of one register's operations, in steps of the model: a search that needs more is given up and
// makes the run invalid. Counted and not timed, so that the judgement of a history is always the same, also on a virtual clock.
const linearBudget = 200_000

// linear checks, with porcupine, that the commits of a group for a partition and the readings of what it committed are linearizable: that there
// is one order of all of them, each within the time that it took, in which every reading returns the commit before it. A commit with an
// unknown outcome may come at any time after it began, or never.
//
// Registers in which commits found a reading that is wrong by itself are left out: they would be reported twice.
func (c *check) linear() {
	for k, ops := range c.registers() {
		if c.wrong[k] {
			continue
		}
		switch linearizable(ops) {
		case porcupine.Illegal:
			c.report(NotLinearizable, "group %s, %s: no order of its %d commits and readings explains what was read", k.group, k.partition, len(ops))
		case porcupine.Unknown:
			c.undecided++
		}
	}
}

// registerInput is a commit, or (read) a reading, whose output is the offset.
type registerInput struct {
	read   bool
	offset int64
}

// registers gathers the operations on each register that count. Commits that failed did nothing; one with an unknown outcome that nobody read
// back can be taken as one that never happened.
func (c *check) registers() map[groupPartition][]porcupine.Operation {
	type value struct {
		groupPartition
		offset int64
	}
	all := map[groupPartition][]porcupine.Operation{}
	lastRead := map[value]int64{} // when the last reading of a value ended, in ns
	for _, r := range c.h.Committed {
		k := groupPartition{r.Group, r.Partition}
		all[k] = append(all[k], porcupine.Operation{Input: registerInput{read: true}, Output: r.Offset, Call: int64(r.Start), Return: int64(r.End)})
		v := value{k, r.Offset}
		lastRead[v] = max(lastRead[v], int64(r.End))
	}
	for _, m := range c.h.Commits {
		k := groupPartition{m.Group, m.Partition}
		end := int64(m.End)
		if m.Outcome == history.Unknown {
			end = math.MaxInt64
		}
		read, ok := lastRead[value{k, m.Offset}]
		if m.Outcome == history.Failed || m.Outcome == history.Unknown && (!ok || read < int64(m.Start)) {
			continue
		}
		all[k] = append(all[k], porcupine.Operation{Input: registerInput{offset: m.Offset}, Call: int64(m.Start), Return: end})
	}
	return all
}

// linearizable searches within linearBudget.
func linearizable(ops []porcupine.Operation) porcupine.CheckResult {
	steps := 0
	model := porcupine.Model{
		Init: func() any { return history.Unassigned },
		Step: func(state, input, output any) (bool, any) {
			if steps++; steps > linearBudget { // nothing fits any more: the search ends
				return false, state
			}
			in := input.(registerInput)
			if in.read {
				return output.(int64) == state.(int64), state
			}
			return true, in.offset
		},
	}
	ok := porcupine.CheckOperations(model, ops)
	switch {
	case ok:
		return porcupine.Ok
	case steps > linearBudget:
		return porcupine.Unknown
	default:
		return porcupine.Illegal
	}
}
