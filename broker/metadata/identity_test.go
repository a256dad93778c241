package metadata

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/broker/api"
)

func openIdentity(t *testing.T, dir string, id api.BrokerID) *Identity {
	t.Helper()
	i, err := OpenIdentity(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	a := openIdentity(t, dir, 3)
	if a.Broker() != 3 || len(a.Incarnation()) != 12 || strings.Contains(a.Incarnation(), "-") || a.ClusterID() != "" {
		t.Fatalf("%+v", a.record())
	}
	select {
	case <-a.Changed():
		t.Error("Changed before the cluster is known")
	default:
	}
	if err := a.Learn("c1"); err != nil {
		t.Fatal(err)
	}
	<-a.Changed()
	if err := a.Learn("c1"); err != nil {
		t.Error(err)
	}
	if err := a.Learn("c2"); !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("learnt another cluster: %v", err)
	}
	b := openIdentity(t, dir, 3)
	if b.record().Incarnation != a.Incarnation() || b.ClusterID() != "c1" {
		t.Errorf("after reopening: %+v", b.record())
	}
	<-b.Changed()
	if c := openIdentity(t, t.TempDir(), 3); c.Incarnation() == a.Incarnation() {
		t.Error("two data directories have the same incarnation")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestIdentityRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want error
	}{
		"other broker":   {`{"format_version":1,"broker_id":4,"incarnation":"x"}`, ErrBrokerMismatch},
		"newer":          {`{"format_version":2,"broker_id":3,"incarnation":"x","colour":1}`, ErrNewerFormat},
		"garbage":        {`{{`, ErrMalformed},
		"empty":          {``, ErrMalformed},
		"no incarnation": {`{"format_version":1,"broker_id":3}`, ErrMalformed},
		"dash":           {`{"format_version":1,"broker_id":3,"incarnation":"a-b"}`, ErrMalformed},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "broker.json")
		if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenIdentity(dir, 3); !errors.Is(err, c.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v, want %v naming the file", name, err, c.want)
		}
		if got, _ := os.ReadFile(path); string(got) != c.text {
			t.Errorf("%s: the file was changed", name)
		}
	}
}

func TestPledgeIsExclusiveAndDurable(t *testing.T) {
	dir := t.TempDir()
	a := openIdentity(t, dir, 1)
	p := Pledge{ClusterID: "c1", Set: []api.BrokerID{1, 2, 3}}
	if err := a.pledge(p); err != nil {
		t.Fatal(err)
	}
	a = openIdentity(t, dir, 1)
	if err := a.pledge(p); err != nil {
		t.Errorf("the same again: %v", err)
	}
	if err := a.pledge(Pledge{ClusterID: "c2", Set: p.Set}); !errors.Is(err, ErrPledged) {
		t.Errorf("another cluster: %v", err)
	}
	if err := a.pledge(Pledge{ClusterID: "c1", Set: []api.BrokerID{0, 1, 2}}); !errors.Is(err, ErrPledged) {
		t.Errorf("another set: %v", err)
	}
	if err := a.Learn("c2"); !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("learnt a cluster against the pledge: %v", err)
	}
	b := openIdentity(t, t.TempDir(), 2)
	if err := b.Learn("c0"); err != nil {
		t.Fatal(err)
	}
	if err := b.pledge(p); !errors.Is(err, ErrClusterMismatch) {
		t.Errorf("a broker with a cluster pledged itself to another: %v", err)
	}
}

// A write that fails half-way must leave the old file: the temporary file's name is a directory here.
func TestIdentityFailedWriteKeepsTheOld(t *testing.T) {
	dir := t.TempDir()
	a := openIdentity(t, dir, 1)
	if err := os.Mkdir(filepath.Join(dir, "broker.json.tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := a.Learn("c1"); err == nil {
		t.Fatal("learnt although nothing could be written")
	}
	if a.ClusterID() != "" {
		t.Error("the memory is ahead of the disk")
	}
	if b := openIdentity(t, dir, 1); b.ClusterID() != "" || b.Incarnation() != a.Incarnation() {
		t.Errorf("after reopening: %+v", b.record())
	}
}

func TestServerIDs(t *testing.T) {
	id := ServerID(7, "abc", 12)
	if b, inc, g, ok := ParseServerID(id); !ok || b != 7 || inc != "abc" || g != 12 {
		t.Errorf("%s: %d %s %d %v", id, b, inc, g, ok)
	}
	for _, bad := range []string{"", "7", "7-abc", "x-abc-1", "7--1", "7-abc-x", "7-abc-0", "-1-abc-1", "7-a-b-1", "99999999999-a-1"} {
		if _, _, _, ok := ParseServerID(bad); ok {
			t.Errorf("%q was parsed", bad)
		}
	}
}

func TestLocalAndSurplus(t *testing.T) {
	old, fresh, other := Replica{1, "1-aa-1"}, Replica{1, "1-aa-3"}, Replica{2, "2-bb-2"}
	p := &Partition{Replicas: []Replica{other, fresh}, Voters: []Replica{old, other}, Generation: 3, Revision: 5, Settled: 4}
	if r, ok := p.Local(1, "aa"); !ok || r != fresh {
		t.Errorf("Local: %v %v", r, ok)
	}
	if _, ok := p.Local(1, "zz"); ok {
		t.Error("another incarnation's replica is local")
	}
	if p.Surplus(old.ServerID) {
		t.Error("a voter is surplus")
	}
	p.Voters = []Replica{other}
	if p.Surplus(old.ServerID) {
		t.Error("surplus before the leader knows the assignment")
	}
	p.Settled = 5
	if !p.Surplus(old.ServerID) || p.Surplus(fresh.ServerID) || p.Surplus(other.ServerID) {
		t.Error("surplus is wrong once settled")
	}
	if p.Surplus("1-aa-4") {
		t.Error("a name that this State has not seen yet is surplus")
	}
	p.Quarantined = []Quarantine{{fresh, "x"}}
	if _, ok := p.Local(1, "aa"); ok {
		t.Error("a quarantined replica is to be opened")
	}
	s := &State{NextGroup: 3, Topics: map[string]*Topic{"t": {Partitions: []*Partition{{Group: 1}}}}}
	g := s.Groups()
	if s.GroupDeleted(0, g) || s.GroupDeleted(1, g) || !s.GroupDeleted(2, g) || s.GroupDeleted(3, g) {
		t.Error("GroupDeleted")
	}
}
