package partition

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
	"github.com/flotilla-log/flotilla/raftlog"
)

// batchOf builds a batch for traces: n records, of a producer if pid is given.
func batchOf(c traceCommand) []byte {
	var opts []recordtest.Option
	if c.has("pid") {
		opts = append(opts, recordtest.Producer(c.num("pid", 0), int16(c.num("epoch", 0)), int32(c.num("seq", 0))))
	}
	return recordtest.Batch(int(c.num("n", 1)), 8, opts...)
}

// wordMachine is a Machine that keeps a list of words.
type wordMachine struct{ words []string }

func (m *wordMachine) Apply(cmd []byte, at time.Time, index raftlog.Index) any {
	m.words = append(m.words, string(cmd[1:]))
	return fmt.Sprintf("%s is word %d, at %d", cmd[1:], len(m.words), at.Unix())
}
func (m *wordMachine) Checkpoint() ([]byte, error) { return []byte(strings.Join(m.words, " ")), nil }
func (m *wordMachine) Restore(b []byte) error {
	m.words = strings.Fields(string(b))
	return nil
}

// stateStory drives a state machine by hand: each command but checkpoint, restore and show is one log entry.
type stateStory struct {
	s     *state
	index uint64
	saved raftlog.Checkpoint
}

func TestStateTraces(t *testing.T) {
	runTraces(t, "state_*.txt", func(t *testing.T) func(traceCommand) string {
		story := &stateStory{s: &state{host: &wordMachine{}}}
		return story.do
	})
}

func (st *stateStory) do(c traceCommand) string {
	switch c.name {
	case "batch":
		b := batchOf(c)
		term := c.num("term", 1)
		record.Stamp(b, record.Offset(c.num("base", 0)), int32(c.num("stamp", term)))
		return st.apply(c, raft.LogCommand, b)
	case "trim":
		cmd := trimCommand{logStart: record.Offset(c.num("start", 0)), index: raftlog.Index(c.num("index", 0))}
		return st.apply(c, raft.LogCommand, cmd.encode())
	case "word":
		return st.apply(c, raft.LogCommand, append([]byte{0xE1}, c.args["is"]...))
	case "config":
		conf := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(c.args["server"]), Address: "1"}}}
		return st.apply(c, raft.LogConfiguration, raft.EncodeConfiguration(conf))
	case "unknown":
		return st.apply(c, raft.LogCommand, []byte{0xF9, 1})
	case "checkpoint":
		cp, err := st.s.checkpoint(st.s.applied, st.s.appliedTerm)
		st.saved = cp
		return fmt.Sprintf("saved at index %d, %d bytes, err %v", cp.Index, len(cp.State), err)
	case "restore":
		before := st.s
		st.s = &state{host: &wordMachine{}}
		if err := st.s.restore(st.saved); err != nil {
			return err.Error()
		}
		again, _ := st.s.checkpoint(st.s.applied, st.s.appliedTerm)
		return fmt.Sprintf("restored; encodes to the same: %v; digest as before: %v", bytes.Equal(again.State, st.saved.State), before.digest == st.s.digest)
	case "show":
		return st.show()
	}
	return "no such command: " + c.name
}

func (st *stateStory) apply(c traceCommand, typ raft.LogType, data []byte) string {
	st.index++
	l := &raft.Log{Index: st.index, Term: uint64(c.num("term", 1)), Type: typ, Data: data, AppendedAt: time.Unix(c.num("at", 1000), 0)}
	res, err := st.s.apply(l)
	switch {
	case err != nil:
		return "stop: " + err.Error()
	case c.name == "batch" && res.accepted:
		return fmt.Sprintf("accepted, next offset %d", st.s.next)
	case c.name == "batch":
		return fmt.Sprintf("dead, next offset stays %d", st.s.next)
	case res.value != nil:
		return fmt.Sprint(res.value)
	case c.name == "trim":
		return fmt.Sprintf("log start %d, trim index %d, moved: %v", st.s.logStart, st.s.trimIndex, res.trimmed)
	}
	return "applied"
}

func (st *stateStory) show() string {
	var b strings.Builder
	s := st.s
	fmt.Fprintf(&b, "applied %d, next offset %d, log start %d, clock %d s, digest %016x\n", s.applied, s.next, s.logStart, s.clock/1e9, s.digest)
	for p := s.producers.oldest; p != nil; p = p.newer {
		fmt.Fprintf(&b, "producer %d epoch %d:", p.id, p.epoch)
		for _, m := range p.batches[:p.n] {
			fmt.Fprintf(&b, " %d-%d@%d", m.sequence, m.lastSequence(), m.base)
		}
		b.WriteString("\n")
	}
	if w := s.host.(*wordMachine).words; len(w) > 0 {
		fmt.Fprintf(&b, "words: %v\n", w)
	}
	if len(s.config.Servers) > 0 {
		fmt.Fprintf(&b, "servers of entry %d: %s\n", s.configIndex, s.config.Servers[0].ID)
	}
	return b.String()
}
