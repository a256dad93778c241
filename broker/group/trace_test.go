package group

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/group/assign"
	"github.com/flotilla-log/flotilla/proto/record"
)

var update = flag.Bool("update", false, "rewrite the expected lines of testdata/*.txt")

// TestTraces plays the stories in testdata. A line without indentation is a comment (#) or an event, written as
//
//	verb subject key=value ...
//
// and the indented lines after it are what came of it: "->" the answer, "*" what happened, "=" the group's new state.
// The group is called g. The verbs are the methods of tracer below. Run with -update to rewrite the indented lines.
func TestTraces(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { playTrace(t, file) })
	}
}

func playTrace(t *testing.T, file string) {
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTracer(t)
	var out strings.Builder
	for _, line := range strings.Split(strings.TrimRight(string(old), "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue
		}
		out.WriteString(line + "\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			for _, got := range tr.play(line) {
				out.WriteString("  " + got + "\n")
			}
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, got := strings.Split(string(old), "\n"), strings.Split(out.String(), "\n")
	for i := range max(len(want), len(got)) {
		w, g := at(want, i), at(got, i)
		if w != g {
			t.Fatalf("%s:%d:\nhave %q\nwant %q", file, i+1, g, w)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "<end>"
}

// tracer plays one story on a machine.
type tracer struct {
	t      *testing.T
	m      *Machine
	now    time.Time
	limits Limits
	counts map[string]int // of members by name, for IDs
	out    []string
	state  string
}

func newTracer(t *testing.T) *tracer {
	tr := &tracer{t: t, m: NewMachine(nil), now: time.UnixMilli(0), counts: map[string]int{}}
	tr.m.observe(tr.happened)
	return tr
}

// words is a line of a trace: positional words and key=value pairs, in order.
type words struct {
	verb, subject string
	keys          []string
	values        map[string]string
}

func parseWords(line string) words {
	w := words{values: map[string]string{}}
	for i, f := range strings.Fields(line) {
		k, v, pair := strings.Cut(f, "=")
		switch {
		case i == 0:
			w.verb = f
		case i == 1 && !pair:
			w.subject = f
		default:
			w.keys = append(w.keys, k)
			w.values[k] = v
		}
	}
	return w
}

func (w words) get(key, def string) string {
	if v, ok := w.values[key]; ok {
		return v
	}
	return def
}

func (w words) has(key string) bool { _, ok := w.values[key]; return ok }

func (tr *tracer) number(w words, key string, def int) int {
	n, err := strconv.Atoi(w.get(key, strconv.Itoa(def)))
	if err != nil {
		tr.t.Fatal(err)
	}
	return n
}

func (tr *tracer) ms(w words, key, def string) int32 {
	d, err := time.ParseDuration(w.get(key, def))
	if err != nil {
		tr.t.Fatal(err)
	}
	return int32(d.Milliseconds())
}

func (tr *tracer) play(line string) []string {
	tr.out = nil
	w := parseWords(line)
	switch w.verb {
	case "wait":
		d, err := time.ParseDuration(w.subject)
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.now = tr.now.Add(d)
	case "limits":
		tr.limits = Limits{GroupsMax: tr.number(w, "groups", 0), MembersMax: tr.number(w, "members", 0),
			OffsetsMax: tr.number(w, "offsets", 0), StateBytesMax: int64(tr.number(w, "bytes", 0))}
	case "failover":
		tr.failover()
	case "heartbeat":
		tr.heartbeat(w)
	case "fetch":
		tr.fetch()
	case "assign":
		tr.assign(w)
	default:
		tr.propose(tr.event(w))
	}
	return tr.out
}

func (tr *tracer) say(format string, args ...any) {
	tr.out = append(tr.out, fmt.Sprintf(format, args...))
}

func (tr *tracer) event(w words) Event {
	switch w.verb {
	case "join":
		return tr.join(w)
	case "sync":
		return tr.sync(w)
	case "leave":
		return &Leave{Group: "g", MemberID: dash(w.subject), InstanceID: w.get("instance", "")}
	case "expire":
		return &ExpireMember{Group: "g", MemberID: w.subject}
	case "join-deadline":
		return &JoinDeadline{Group: "g", Round: uint64(tr.number(w, "round", int(tr.group().round)))}
	case "sync-deadline":
		return &SyncDeadline{Group: "g", Generation: int32(tr.number(w, "gen", 0)), Missing: strings.Split(w.get("missing", ""), ",")}
	case "rebalance":
		return &Rebalance{Group: "g", Generation: int32(tr.number(w, "gen", 0)), Reason: "the topic grew"}
	case "commit":
		return &Commit{Group: "g", MemberID: dash(w.subject), InstanceID: w.get("instance", ""),
			Generation: int32(tr.number(w, "gen", -1)), Offsets: tr.offsets(w)}
	case "set":
		return &SetOffsets{Group: "g", Offsets: tr.offsets(w)}
	case "forget":
		return &Forget{Group: "g", Offsets: tr.offsets(w)}
	case "delete":
		return &Delete{Group: "g"}
	case "expire-offsets":
		return &ExpireOffsets{RetentionMs: int64(tr.ms(w, "retention", "168h"))}
	}
	tr.t.Fatalf("unknown verb %q", w.verb)
	return nil
}

func dash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

// group returns the group, or an empty one if the machine has none.
func (tr *tracer) group() *group {
	if g := tr.m.groups["g"]; g != nil {
		return g
	}
	return newGroup("g")
}

func (tr *tracer) join(w words) Event {
	if !w.has("id") {
		tr.counts[w.subject]++
	}
	e := &Join{
		Group: "g", MemberID: w.get("id", ""), NewID: fmt.Sprintf("%s%d", w.subject, tr.counts[w.subject]), InstanceID: w.get("instance", ""),
		ClientID: w.subject, ClientHost: "host", SessionMs: tr.ms(w, "session", "45s"), RebalanceMs: tr.ms(w, "rebalance", "5m"),
		ProtocolType: w.get("type", "consumer"), RequireMemberID: w.has("require-id"), Native: w.has("native"),
	}
	m := assign.Member{Topics: strings.Split(w.get("topics", "t"), ","), Owned: partitions(w.get("owned", "")), Generation: int32(tr.number(w, "owned-gen", -1))}
	for _, name := range strings.Split(w.get("protocols", "range"), ",") {
		e.Protocols = append(e.Protocols, api.GroupProtocol{Name: name, Metadata: assign.EncodeSubscription(name, m)})
	}
	return e
}

// partitions reads t/0,t/1.
func partitions(list string) []api.TopicPartition {
	var tps []api.TopicPartition
	for _, s := range strings.Split(list, ",") {
		if tp, ok := partitionNamed(s); ok {
			tps = append(tps, tp)
		}
	}
	return tps
}

func partitionNamed(s string) (api.TopicPartition, bool) {
	topic, p, ok := strings.Cut(s, "/")
	n, err := strconv.Atoi(p)
	return api.TopicPartition{Topic: topic, Partition: int32(n)}, ok && err == nil
}

func (tr *tracer) sync(w words) Event {
	e := &Sync{Group: "g", MemberID: w.subject, InstanceID: w.get("instance", ""), Generation: int32(tr.number(w, "gen", 0)),
		ProtocolType: w.get("type", ""), Protocol: w.get("protocol", "")}
	for _, k := range w.keys {
		if !slices.Contains([]string{"gen", "instance", "type", "protocol"}, k) {
			e.Assignments = append(e.Assignments, MemberAssignment{k, assign.EncodeAssignment(partitions(w.values[k]))})
		}
	}
	return e
}

// assign is the coordinator's own Sync for a native leader.
func (tr *tracer) assign(w words) {
	g := tr.group()
	if g.leader == "" {
		tr.t.Fatal("assign: the group has no leader")
	}
	s := g.snapshot()
	as, _, _, err := s.assign(func(topic string) (int32, bool) { return int32(tr.number(w, topic, 0)), true })
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.propose(&Sync{Group: "g", MemberID: s.leader, Generation: s.generation, Assignments: as})
}

func (tr *tracer) offsets(w words) []api.OffsetCommit {
	var offsets []api.OffsetCommit
	for _, k := range w.keys {
		if tp, ok := partitionNamed(k); ok {
			v, metadata, _ := strings.Cut(w.values[k], ":")
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				tr.t.Fatal(err)
			}
			offsets = append(offsets, api.OffsetCommit{TopicPartition: tp, Offset: record.Offset(n), LeaderEpoch: -1, Metadata: metadata})
		}
	}
	return offsets
}

func (tr *tracer) propose(ev Event) {
	results, ok := tr.m.Apply(EncodeCommand(tr.limits, ev), tr.now, 0).([]Result)
	if !ok || len(results) != 1 {
		tr.t.Fatalf("apply of %#v failed", ev)
	}
	actions := tr.out
	tr.out = nil
	tr.answer(ev, results[0])
	tr.out = append(tr.out, actions...)
	if state := describeState(tr.m.groups["g"]); state != tr.state {
		tr.say("= %s", state)
		tr.state = state
	}
}

func (tr *tracer) answer(ev Event, res Result) {
	switch {
	case res.Err != nil:
		tr.say("-> %s: %s", codeName(res.Err.Code), res.Err.Message)
	case res.Joined != nil:
		tr.say("-> %s", describeJoined(*res.Joined))
	case ev.kind() == kindJoin:
		tr.say("-> %s waits for the end of the join phase", res.MemberID)
	case len(res.Subscribed) > 0:
		tr.say("-> GROUP_SUBSCRIBED_TO_TOPIC: %s", strings.Join(res.Subscribed, ", "))
	case ev.kind() == kindForget || ev.kind() == kindCommit || ev.kind() == kindSetOffsets:
		tr.say("-> ok")
	}
}

func (tr *tracer) happened(_ string, actions []Action) {
	g := tr.m.groups["g"]
	for _, a := range actions {
		switch a.Kind {
		case MemberRemoved:
			tr.say("* %s %s", a.Member, a.Reason)
		case JoinPhase:
			tr.say("* join phase: %s", a.Reason)
		case NewGeneration:
			tr.say("* generation %d with protocol %s", g.generation, g.protocol)
			for _, m := range g.sorted() {
				tr.say("    %s", describeJoined(g.joinResult(m)))
			}
		case Assigned:
			for _, m := range g.sorted() {
				tps, _ := assign.DecodeAssignment(m.assignment)
				tr.say("* %s has %s", m.id, namePartitions(tps))
			}
		case BecameEmpty:
			tr.say("* the last member is gone")
		case Removed:
			tr.say("* removed: %s", a.Reason)
		case OffsetsExpired:
			tr.say("* offsets expired")
		}
	}
}

func namePartitions(tps []api.TopicPartition) string {
	if len(tps) == 0 {
		return "nothing"
	}
	var names []string
	for _, tp := range tps {
		names = append(names, fmt.Sprintf("%s/%d", tp.Topic, tp.Partition))
	}
	return strings.Join(names, " ")
}

func describeJoined(r api.JoinResult) string {
	s := fmt.Sprintf("%s joined generation %d", r.MemberID, r.Generation)
	if r.Leader == r.MemberID {
		s += " as leader of"
		for _, m := range r.Members {
			s += " " + m.MemberID
		}
	}
	if r.SkipAssignment {
		s += ", to leave the assignment as it is"
	}
	return s
}

func describeState(g *group) string {
	if g == nil {
		return "no such group"
	}
	s := fmt.Sprintf("%s, generation %d", g.state, g.generation)
	for _, m := range g.sorted() {
		s += " | " + m.id
		if m.id == g.leader {
			s += "*"
		}
		if m.joined {
			s += " (joined)"
		}
	}
	if len(g.pending) > 0 {
		s += fmt.Sprintf(" | %d pending", len(g.pending))
	}
	return s
}

func (tr *tracer) failover() {
	b, err := tr.m.Checkpoint()
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.m = NewMachine(nil)
	if err := tr.m.Restore(b); err != nil {
		tr.t.Fatal(err)
	}
	tr.m.observe(tr.happened)
	tr.say("= %s", describeState(tr.m.groups["g"]))
}

func (tr *tracer) heartbeat(w words) {
	ref := api.MemberRef{Group: "g", MemberID: w.subject, InstanceID: w.get("instance", ""), Generation: int32(tr.number(w, "gen", 0))}
	if err := tr.group().checkHeartbeat(ref); err != nil {
		tr.say("-> %s: %s", codeName(err.Code), err.Message)
		return
	}
	tr.say("-> ok")
}

func (tr *tracer) fetch() {
	commits := tr.group().commits()
	for _, c := range commits {
		s := fmt.Sprintf("%s/%d at %d", c.Topic, c.Partition, c.Offset)
		if c.Metadata != "" {
			s += fmt.Sprintf(" %q", c.Metadata)
		}
		tr.say("%s, committed at %v", s, time.Duration(c.CommitTime)*time.Millisecond)
	}
	if len(commits) == 0 {
		tr.say("no offsets")
	}
}

func codeName(c api.Code) string {
	names := map[api.Code]string{
		api.CodeUnknownMember: "UNKNOWN_MEMBER_ID", api.CodeFencedInstance: "FENCED_INSTANCE_ID", api.CodeIllegalGeneration: "ILLEGAL_GENERATION",
		api.CodeRebalanceInProgress: "REBALANCE_IN_PROGRESS", api.CodeInconsistentProtocol: "INCONSISTENT_GROUP_PROTOCOL",
		api.CodeMemberIDRequired: "MEMBER_ID_REQUIRED", api.CodeGroupFull: "GROUP_MAX_SIZE_REACHED", api.CodeGroupNotEmpty: "NON_EMPTY_GROUP",
		api.CodeUnknownGroup: "GROUP_ID_NOT_FOUND", api.CodeStorageFull: "STORAGE_FULL", api.CodePolicyViolation: "POLICY_VIOLATION",
	}
	if n, ok := names[c]; ok {
		return n
	}
	return errors.New(strconv.Itoa(int(c))).Error()
}
