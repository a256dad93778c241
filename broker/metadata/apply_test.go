package metadata

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
)

var update = flag.Bool("update", false, "rewrite the golden traces in testdata")

// TestTraces runs the stories in testdata. A line "kind {json}" applies a command; its outcome and what it changed stand below,
// behind "> ". "refused" is said by the proposer, "error" by the state machine. Lines that begin with '#' and empty lines are kept.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runTrace(t, want)
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(got, want) {
				t.Errorf("%s differs (go test -update rewrites it); got:\n%s", file, got)
			}
		})
	}
}

func runTrace(t *testing.T, script []byte) []byte {
	var out bytes.Buffer
	f := newFSM()
	index := uint64(0)
	for sc := bufio.NewScanner(bytes.NewReader(script)); sc.Scan(); {
		line := sc.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || line[0] == '#' {
			continue
		}
		kind, body, _ := strings.Cut(line, " ")
		index++
		before := f.state.Load()
		frozen := mustJSON(t, before)
		data := append([]byte{commandVersion}, mustJSON(t, envelope{Kind: kind, Body: json.RawMessage(body)})...)
		if _, c, err := decodeCommand(data); err == nil {
			if err := c.check(before); err != nil {
				fmt.Fprintf(&out, "> refused %d: %s\n", api.CodeOf(err), err)
				continue
			}
		}
		o := f.Apply(&raft.Log{Index: index, Data: data}).(outcome)
		if string(mustJSON(t, before)) != string(frozen) {
			t.Fatalf("%s changed the state before it", line)
		}
		describe(&out, o, before, f.state.Load())
	}
	return out.Bytes()
}

func describe(out *bytes.Buffer, o outcome, before, after *State) {
	switch {
	case o.Failed:
		fmt.Fprintf(out, "> error %d: %s\n", o.Code, o.Message)
	case o.Result.Skipped > 0:
		fmt.Fprintf(out, "> skipped %d\n", o.Result.Skipped)
	case o.Result.FirstProducerID > 0:
		fmt.Fprintf(out, "> producer IDs from %d\n", o.Result.FirstProducerID)
	}
	if before == after {
		fmt.Fprintln(out, "> nothing changed")
		return
	}
	if before.ClusterID != after.ClusterID || before.Rebalance != after.Rebalance {
		fmt.Fprintf(out, "> cluster %s rebalance=%v\n", after.ClusterID, after.Rebalance)
	}
	for _, b := range after.SortedBrokers() {
		if old := before.Brokers[b.ID]; old == nil || *old != *b {
			fmt.Fprintf(out, "> broker %d incarnation=%s grpc=%s rack=%s draining=%v away=%d left=%v\n", b.ID, b.Incarnation, b.GRPCAddr, b.Rack, b.Draining, b.AwaySinceMs, b.Left)
		}
	}
	for _, b := range before.SortedBrokers() {
		if after.Brokers[b.ID] == nil {
			fmt.Fprintf(out, "> broker %d is forgotten\n", b.ID)
		}
	}
	describeTopics(out, before, after)
}

func describeTopics(out *bytes.Buffer, before, after *State) {
	for _, t := range after.SortedTopics() {
		old := before.Topics[t.Name]
		if old == t {
			continue
		}
		fmt.Fprintf(out, "> topic %s rf=%d settings=%v\n", t.Name, t.ReplicationFactor, t.Settings)
		for i, p := range t.Partitions {
			if old == nil || i >= len(old.Partitions) || old.Partitions[i] != p {
				fmt.Fprintf(out, ">   %s group=%d replicas=%s voters=%s leader=%d epoch=%d revision=%d settled=%d%s\n",
					p, p.Group, names(p.Replicas), names(p.Voters), p.Leader, p.LeaderEpoch, p.Revision, p.Settled, beside(p))
			}
		}
	}
	for _, t := range before.SortedTopics() {
		if after.Topics[t.Name] == nil {
			fmt.Fprintf(out, "> topic %s is gone\n", t.Name)
		}
	}
}

func names(list []Replica) string {
	ids := make([]string, len(list))
	for i, r := range list {
		ids[i] = r.ServerID
	}
	return strings.Join(ids, ",")
}

// beside is what most partitions have none of.
func beside(p *Partition) string {
	s := ""
	if len(p.Former) > 0 {
		s += " former=" + names(p.Former)
	}
	for _, q := range p.Quarantined {
		s += fmt.Sprintf(" quarantined=%s(%s)", q.ServerID, q.Reason)
	}
	return s
}

func mustJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// machine applies commands directly.
type machine struct {
	*fsm
	t     *testing.T
	index uint64
}

func newMachine(t *testing.T) *machine { return &machine{fsm: newFSM(), t: t} }

func (m *machine) apply(request string, c Command) (Result, error) {
	m.t.Helper()
	data, err := encodeCommand(request, c)
	if err != nil {
		m.t.Fatal(err)
	}
	m.index++
	o := m.Apply(&raft.Log{Index: m.index, Data: data}).(outcome)
	return o.Result, o.err()
}

func (m *machine) must(c Command) Result {
	m.t.Helper()
	r, err := m.apply("", c)
	if err != nil {
		m.t.Fatalf("%s: %v", c.kind(), err)
	}
	return r
}

func (m *machine) cluster(brokers int) {
	m.must(&InitCluster{ClusterID: "test"})
	for i := range brokers {
		m.must(&RegisterBroker{Broker: Broker{ID: api.BrokerID(i), Incarnation: "inc"}})
	}
}

func TestRequestIsAppliedOnce(t *testing.T) {
	m := newMachine(t)
	first, err := m.apply("r1", &AllocateProducerIDs{Count: 10})
	if err != nil || first.FirstProducerID != 1 {
		t.Fatalf("first block %+v, %v", first, err)
	}
	again, err := m.apply("r1", &AllocateProducerIDs{Count: 10})
	if err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("again: %+v, %v; want %+v", again, err, first)
	}
	// Errors are remembered too.
	_, err = m.apply("r2", &SetDraining{ID: 1, Draining: true})
	m.must(&RegisterBroker{Broker: Broker{ID: 1, Incarnation: "x"}})
	if _, err2 := m.apply("r2", &SetDraining{ID: 1, Draining: true}); api.CodeOf(err) != api.CodeUnknownBroker || api.CodeOf(err2) != api.CodeUnknownBroker {
		t.Errorf("%v, then %v", err, err2)
	}
	for i := range maxRequests {
		m.apply(fmt.Sprint("later", i), &AllocateProducerIDs{Count: 1})
	}
	if len(m.requests) != maxRequests || len(m.ring) != maxRequests {
		t.Errorf("%d requests are remembered, %d in the ring", len(m.requests), len(m.ring))
	}
	if r, _ := m.apply("r1", &AllocateProducerIDs{Count: 1}); r.FirstProducerID == first.FirstProducerID {
		t.Error("the table of requests is not bounded")
	}
}

type sink struct{ bytes.Buffer }

func (*sink) ID() string      { return "" }
func (*sink) Cancel() error   { return nil }
func (s *sink) Close() error  { return nil }
func (s *sink) reader() *sink { return s }

func TestSnapshotRestore(t *testing.T) {
	m := newMachine(t)
	m.cluster(3)
	m.must(&CreateTopic{Name: "orders", ID: [16]byte{7}, ReplicationFactor: 2, Settings: map[string]string{"retention.ms": "5"}, Assignment: [][]api.BrokerID{{0, 1}, {1, 2}}})
	m.apply("request", &AllocateProducerIDs{Count: 5})
	snap, err := m.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	m.must(&DeleteTopic{Name: "orders"}) // after the snapshot, before it is written
	var s sink
	if err := snap.Persist(&s); err != nil {
		t.Fatal(err)
	}
	other := newMachine(t)
	if err := other.Restore(s.reader()); err != nil {
		t.Fatal(err)
	}
	other.index = m.index
	if st := other.state.Load(); st.Find(api.TopicPartition{Topic: "orders", Partition: 1}) == nil || st.NextGroup != 3 || st.Brokers[2] == nil || st.Topics["orders"].ID[0] != 7 {
		t.Errorf("restored %s", mustJSON(t, st))
	}
	if r, err := other.apply("request", &AllocateProducerIDs{Count: 5}); err != nil || r.FirstProducerID != 1 {
		t.Errorf("requests are not in the snapshot: %+v, %v", r, err)
	}
	other.must(&DeleteTopic{Name: "orders"})
	a, b := *m.state.Load(), *other.state.Load()
	a.Version, b.Version = 0, 0
	if string(mustJSON(t, a)) != string(mustJSON(t, b)) {
		t.Errorf("the machines differ:\n%s\n%s", mustJSON(t, a), mustJSON(t, b))
	}
}

func TestRestoreRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"garbage":        "not json",
		"newer":          `{"format_version": 99, "state": {}}`,
		"no state":       `{"format_version": 1}`,
		"null broker":    `{"format_version": 1, "state": {"brokers": {"1": null}}}`,
		"null topic":     `{"format_version": 1, "state": {"topics": {"a": null}}}`,
		"null partition": `{"format_version": 1, "state": {"topics": {"a": {"name": "a", "partitions": [null]}}}}`,
	} {
		m := newMachine(t)
		m.cluster(1)
		var s sink
		s.WriteString(text)
		if err := m.Restore(s.reader()); err == nil {
			t.Errorf("%s: restored", name)
		}
		if m.state.Load().ClusterID != "test" {
			t.Errorf("%s: the state was touched", name)
		}
	}
}

func FuzzCommand(f *testing.F) {
	for _, c := range []Command{&InitCluster{"c"}, &RegisterBroker{Broker: Broker{ID: 1, Incarnation: "i"}},
		&CreateTopic{Name: "t", ReplicationFactor: 1, Assignment: [][]api.BrokerID{{0}}},
		&SetReplicas{[]ReplicaChange{{Group: 1, TP: api.TopicPartition{Topic: "x"}, Replicas: []Replica{{Broker: 1}}}}},
		&Report{[]PartitionReport{{TP: api.TopicPartition{Topic: "x"}, Group: 1, Leader: 1, Epoch: 1, Voters: []Replica{{0, "0-inc-1"}}}}},
		&QuarantineReplica{TP: api.TopicPartition{Topic: "x"}, Group: 1, ServerID: "0-inc-1"}} {
		b, err := encodeCommand("r", c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMachine(t)
		m.cluster(2)
		m.must(&CreateTopic{Name: "x", ReplicationFactor: 2, Assignment: [][]api.BrokerID{{0, 1}}})
		before := m.state.Load()
		frozen := mustJSON(t, before)
		o := m.Apply(&raft.Log{Index: 100, Data: b}).(outcome)
		if o.Failed && m.state.Load() != before {
			t.Fatal("a failed command changed the state")
		}
		if string(mustJSON(t, before)) != string(frozen) {
			t.Fatal("a published state was changed")
		}
		if err := (&snapshot{FormatVersion: 1, State: m.state.Load()}).check(); err != nil {
			t.Fatal(err)
		}
	})
}

// A command of a newer release ends it: nothing after it is applied, and no snapshot claims otherwise.
func TestNewerCommandHalts(t *testing.T) {
	good, err := encodeCommand("", &InitCluster{ClusterID: "c"})
	if err != nil {
		t.Fatal(err)
	}
	for name, newer := range map[string][]byte{
		"version": append([]byte{commandVersion + 1}, good[1:]...),
		"kind":    append([]byte{commandVersion}, mustJSON(t, envelope{Kind: "from-the-future", Body: json.RawMessage("{}")})...),
	} {
		f := newFSM()
		var told []error
		f.onHalt = func(err error) { told = append(told, err) }
		f.Apply(&raft.Log{Index: 1, Data: newer})
		before := f.state.Load()
		f.Apply(&raft.Log{Index: 2, Data: newer})
		o := f.Apply(&raft.Log{Index: 3, Data: good}).(outcome)
		if len(told) != 1 || !errors.Is(told[0], ErrNewerFormat) || !strings.Contains(told[0].Error(), "entry 1") || !strings.Contains(told[0].Error(), "upgrade") {
			t.Errorf("%s: told %v", name, told)
		}
		if !o.Failed || f.state.Load() != before || f.index.Load() != 0 {
			t.Errorf("%s: went on to index %d: %+v", name, f.index.Load(), o)
		}
		if _, err := f.Snapshot(); !errors.Is(err, ErrNewerFormat) {
			t.Errorf("%s: a snapshot: %v", name, err)
		}
	}
}

func BenchmarkReport(b *testing.B) {
	f := newFSM()
	ch := newChange(f.state.Load())
	_, _ = (&RegisterBroker{Broker: Broker{ID: 0, Incarnation: "i"}}).apply(ch)
	for i := range 200 {
		a := make([][]api.BrokerID, 50)
		for j := range a {
			a[j] = []api.BrokerID{0}
		}
		if _, err := (&CreateTopic{Name: fmt.Sprint("t", i), ReplicationFactor: 1, Assignment: a}).apply(ch); err != nil {
			b.Fatal(err)
		}
	}
	s := ch.done(1)
	b.ResetTimer()
	for i := range b.N {
		ch := newChange(s)
		p := s.Topics["t7"].Partitions[3]
		_, _ = (&Report{[]PartitionReport{{TP: p.TP(), Group: p.Group, Leader: 0, Epoch: int32(i + 1)}}}).apply(ch)
		s = ch.done(uint64(i + 2))
	}
}
