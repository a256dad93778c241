package controller

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

var update = flag.Bool("update", false, "rewrite the golden traces in testdata")

// TestTraces runs the stories in testdata: a line is a command, what came of it stands below behind "> ".
//
//	broker ID [RACK]            a broker appears
//	kill|return|wiped ID        it goes; comes back; comes back with an empty disk
//	drain|undrain ID            decommission, recommission
//	topic NAME PARTITIONS RF    create a topic
//	builds N                    no broker builds more than N replicas at once
//	quarantine TOPIC/P BROKER   a replica's files are damaged
//	rebalance                   ask for it
//	reassign TOPIC/P ID,ID,...  an operator says where the replicas shall be; "cancel" takes that back
//	wait DURATION               time passes
//	plan                        what the controller would do next
//	step                        do it, and let the leaders move the voters
//	apply                       do it, but let the voters stay as they are for now
//	run                         step until nothing is left to do
//	show                        partitions (preferred leader first), and replicas/leaders of each broker
//	problems                    what status would say
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
	tr := &trace{world: newWorld(t)}
	for sc := bufio.NewScanner(bytes.NewReader(script)); sc.Scan(); {
		line := sc.Text()
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&tr.out, line)
		if line != "" && line[0] != '#' {
			tr.command(strings.Fields(line))
		}
	}
	return tr.out.Bytes()
}

type trace struct {
	*world
	out bytes.Buffer
}

func (tr *trace) say(format string, args ...any) { fmt.Fprintf(&tr.out, "> "+format+"\n", args...) }

func (tr *trace) command(f []string) {
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	id := func(s string) api.BrokerID { n, _ := strconv.Atoi(s); return api.BrokerID(n) }
	switch f[0] {
	case "broker":
		tr.broker(id(f[1]), arg(2))
	case "kill":
		tr.kill(id(f[1]))
	case "return", "wiped":
		tr.revive(id(f[1]), f[0] == "wiped")
	case "drain", "undrain":
		tr.do(&metadata.SetDraining{ID: id(f[1]), Draining: f[0] == "drain", Rebalance: true})
	case "topic":
		if err := tr.create(f[1], int32(id(f[2])), int16(id(f[3]))); err != nil {
			tr.say("%v", err)
		}
	case "builds":
		tr.limits.MaxBuilding = int(id(f[1]))
	case "quarantine":
		tr.quarantine(f[1], id(f[2]))
	case "rebalance":
		plan := PlanRebalance(tr.view())
		tr.say("%d moves, %d leader transfers", len(plan.Moves), plan.LeaderTransfers)
		tr.do(&metadata.SetRebalance{On: true, Everything: true})
	case "reassign":
		tr.reassign(f[1], f[2])
	case "wait":
		d, err := time.ParseDuration(f[1])
		if err != nil {
			tr.t.Fatal(err)
		}
		tr.now = tr.now.Add(d)
	case "plan", "step", "apply":
		p := MakePlan(tr.view(), tr.limits)
		tr.plan(p)
		if f[0] != "plan" {
			tr.world.apply(p)
		}
		if f[0] == "step" {
			tr.settle()
		}
	case "run":
		plans := tr.run()
		for _, p := range plans {
			tr.plan(p)
		}
		if len(plans) == 0 {
			tr.say("nothing to do")
		}
	case "show":
		tr.show()
	case "problems":
		for _, p := range Problems(tr.view()) {
			tr.say("%s/%d: %s", p.Topic, p.Partition, p.Problem)
		}
	default:
		tr.t.Fatalf("unknown command %q", f[0])
	}
}

func (tr *trace) quarantine(tp string, broker api.BrokerID) {
	p := tr.s.Find(parseTP(tp))
	for _, r := range p.Replicas {
		if r.Broker == broker {
			tr.do(&metadata.QuarantineReplica{TP: p.TP(), Group: p.Group, ServerID: r.ServerID, Reason: "bad checksum"})
		}
	}
}

func (tr *trace) reassign(tp, target string) {
	p := tr.s.Find(parseTP(tp))
	c := metadata.TargetChange{Group: p.Group, TP: p.TP()}
	if target != "cancel" {
		for _, s := range strings.Split(target, ",") {
			n, _ := strconv.Atoi(s)
			c.Target = append(c.Target, api.BrokerID(n))
		}
	}
	for _, f := range tr.do(&metadata.Reassign{Changes: []metadata.TargetChange{c}}).Failures {
		tr.say("%v", f.Err())
	}
}

func parseTP(tp string) api.TopicPartition {
	topic, n, _ := strings.Cut(tp, "/")
	i, _ := strconv.Atoi(n)
	return api.TopicPartition{Topic: topic, Partition: int32(i)}
}

func (tr *trace) plan(p Plan) {
	tr.say("%d changes", len(p.Changes))
	for i, c := range p.Changes {
		tr.say("  %s/%d on %s (%s)", c.TP.Topic, c.TP.Partition, ids(metadata.BrokerIDs(c.Replicas)), p.Reasons[i])
	}
	for _, b := range p.Blocked {
		tr.say("  %s/%d cannot: %s", b.Topic, b.Partition, b.Problem)
	}
	if p.Balanced {
		tr.say("  balanced")
	}
}

func (tr *trace) show() {
	for _, t := range tr.s.SortedTopics() {
		var parts []string
		for _, p := range t.Partitions {
			parts = append(parts, ids(metadata.BrokerIDs(p.Replicas)))
		}
		tr.say("%s: %s", t.Name, strings.Join(parts, "  "))
	}
	l := tr.loads()
	for _, b := range tr.s.SortedBrokers() {
		states := map[api.BrokerState]string{api.BrokerAlive: "alive", api.BrokerFailed: "failed", api.BrokerLeft: "left", api.BrokerDraining: "draining", api.BrokerDrained: "drained"}
		tr.say("broker %d %s: %d replicas, leads %d", b.ID, states[BrokerState(tr.view(), b.ID)], l.replicas[b.ID], l.leaders[b.ID])
	}
}
