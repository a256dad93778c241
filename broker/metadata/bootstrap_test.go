package metadata

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"github.com/flotilla-log/flotilla/broker/api"
)

func TestBootstrapSet(t *testing.T) {
	all := func(expect int, cluster string, ids ...api.BrokerID) (out []Candidate) {
		for _, id := range ids {
			out = append(out, Candidate{ID: id, Expect: expect, ClusterID: cluster})
		}
		return out
	}
	for name, c := range map[string]struct {
		expect int
		alive  []Candidate
		want   []api.BrokerID
	}{
		"too few":                 {3, all(3, "", 1, 2), nil},
		"exactly":                 {3, all(3, "", 3, 1, 2), []api.BrokerID{1, 2, 3}},
		"more: the lowest":        {3, all(3, "", 9, 5, 1, 7), []api.BrokerID{1, 5, 7}},
		"others expect otherwise": {3, append(all(3, "", 1, 2), all(5, "", 3)...), nil},
		"others expect nothing":   {2, append(all(2, "", 5, 6), all(0, "", 1)...), []api.BrokerID{5, 6}},
		"a cluster is there":      {2, append(all(2, "", 5, 6), all(0, "c", 1)...), nil},
		"expects nothing":         {0, all(0, "", 1, 2), nil},
	} {
		if got := bootstrapSet(c.expect, c.alive); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestMayBegin(t *testing.T) {
	set := []api.BrokerID{1, 2}
	ok := []Candidate{{ID: 1, Set: set}, {ID: 2, Set: set}, {ID: 3}}
	if !mayBegin(1, set, ok) {
		t.Error("all agree, and 1 is the lowest")
	}
	if mayBegin(2, set, ok) {
		t.Error("2 is not the lowest")
	}
	if mayBegin(1, set, ok[:1]) {
		t.Error("2 is not there")
	}
	if mayBegin(1, set, []Candidate{ok[0], {ID: 2, Set: []api.BrokerID{2, 3}}}) {
		t.Error("2 has another set")
	}
	if mayBegin(1, set, append(ok, Candidate{ID: 4, ClusterID: "c"})) {
		t.Error("there is a cluster")
	}
}

// Two brokers, misled by gossip, begin with sets that overlap: only one of them can.
func TestOnlyOneBeginning(t *testing.T) {
	c := newTestCluster(t, 0, 1, 2, 3)
	c.expect = 3
	agreed := func(set ...api.BrokerID) (out []Candidate) {
		for _, id := range set {
			out = append(out, Candidate{ID: id, Expect: 3, Set: set})
		}
		return out
	}
	if ok, err := c.nodes[1].TryBootstrap(context.Background(), 3, agreed(1, 2, 3)); !ok || err != nil {
		t.Fatalf("the first beginning: %v, %v", ok, err)
	}
	ok, err := c.nodes[0].TryBootstrap(context.Background(), 3, agreed(0, 1, 2))
	if ok || err == nil {
		t.Fatalf("a second cluster began: %v, %v", ok, err)
	}
	c.eventually("the first is a cluster", func() bool { return c.nodes[3].State().ClusterID != "" })
	if c.nodes[0].HasCluster() {
		t.Error("broker 0 has a cluster of its own")
	}
}

// A beginning that stops half-way goes on after a restart, with the same cluster ID.
func TestBeginningIsResumed(t *testing.T) {
	c := newTestCluster(t, 1, 2, 3)
	set := []api.BrokerID{1, 2, 3}
	down := c.nodes[3]
	down.stop()
	agreed := []Candidate{{ID: 1, Expect: 3, Set: set}, {ID: 2, Expect: 3, Set: set}, {ID: 3, Expect: 3, Set: set}}
	if ok, err := c.nodes[1].TryBootstrap(context.Background(), 3, agreed); ok || err == nil {
		t.Fatalf("began without broker 3: %v, %v", ok, err)
	}
	pledge := c.nodes[2].cfg.Identity.record().Pledge
	if pledge == nil {
		t.Fatal("broker 2 was not asked")
	}
	c.nodes[1].stop()
	c.nodes[1].start()
	down.start()
	c.bootstrap()
	if got := c.nodes[3].cfg.Identity.ClusterID(); got != pledge.ClusterID {
		t.Errorf("the cluster is %s, the pledge was for %s", got, pledge.ClusterID)
	}
}

// A broker that dies between the two things that Raft stores to begin, the term and the configuration, completes them when it starts again.
func TestInterruptedBootstrapIsCompleted(t *testing.T) {
	c := newTestCluster(t, 1)
	n := c.nodes[1]
	identity := n.cfg.Identity
	if err := identity.pledge(Pledge{ClusterID: "abc", Set: []api.BrokerID{1}}); err != nil {
		t.Fatal(err)
	}
	if err := identity.setFounders([]Founder{{1, identity.Incarnation()}}); err != nil {
		t.Fatal(err)
	}
	if err := n.cfg.Stable.SetUint64([]byte("CurrentTerm"), 1); err != nil {
		t.Fatal(err)
	}
	n.stop()
	n.start()
	c.bootstrap()
	if got := n.cfg.Identity.ClusterID(); got != "abc" {
		t.Errorf("the cluster is %q", got)
	}
}

func TestPledgeRequestsAreChecked(t *testing.T) {
	c := newTestCluster(t, 1, 2)
	n := c.nodes[2]
	for name, c := range map[string]struct {
		from string
		p    Pledge
		want error
	}{
		"not the lowest":   {"2", Pledge{"c", []api.BrokerID{1, 2}}, ErrPledged},
		"not in the set":   {"1", Pledge{"c", []api.BrokerID{1, 3}}, ErrMalformed},
		"not sorted":       {"2", Pledge{"c", []api.BrokerID{2, 1}}, ErrMalformed},
		"no cluster":       {"1", Pledge{"", []api.BrokerID{1, 2}}, ErrMalformed},
		"nobody in it":     {"1", Pledge{"c", nil}, ErrMalformed},
		"all as it should": {"1", Pledge{"c", []api.BrokerID{1, 2}}, nil},
	} {
		if err := n.checkPledge(ServerAddress(api.BrokerID(c.from[0]-'0')), pledgeMessage{Pledge: c.p}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
