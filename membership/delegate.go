package membership

import (
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist calls back. Its methods run on memberlist's goroutines, mostly under memberlist's lock: they never block
// and never call memberlist.
type delegate struct {
	name   string
	log    hclog.Logger
	table  *table
	notice chan struct{} // 1: a refusal is waiting

	mu      sync.Mutex
	meta    wireMeta
	encoded []byte // of meta
	addr    string // advertised host:port; "" until memberlist reported this node
	cluster string // the first cluster ID seen, where meta has none yet
	refusal *refusal
}

// refusal is the latest reason not to take somebody in that concerns this broker as much as the other.
type refusal struct {
	err  error
	addr string // for a duplicate: where the other one is, or was
}

func newDelegate(m Meta, t *table, log hclog.Logger) (*delegate, error) {
	d := &delegate{name: nodeName(m.ID), log: log, table: t, notice: make(chan struct{}, 1)}
	return d, d.setMeta(wireMeta{Meta: m})
}

func nodeName(id int32) string { return strconv.Itoa(int(id)) }

func (d *delegate) setMeta(m wireMeta) error {
	b, err := m.encode()
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.meta, d.encoded = m, b
	return nil
}

func (d *delegate) currentMeta() wireMeta {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.meta
}

func (d *delegate) localAddr() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.addr
}

// NodeMeta implements memberlist.Delegate. setMeta made sure that it fits.
func (d *delegate) NodeMeta(int) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.encoded
}

// NotifyMsg, GetBroadcasts, LocalState and MergeRemoteState implement memberlist.Delegate: nothing but Meta is exchanged.
func (d *delegate) NotifyMsg([]byte)                {}
func (d *delegate) GetBroadcasts(int, int) [][]byte { return nil }
func (d *delegate) LocalState(bool) []byte          { return nil }
func (d *delegate) MergeRemoteState([]byte, bool)   {}

// NotifyJoin, NotifyUpdate and NotifyLeave implement memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node)   { d.record(n, Alive) }
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.record(n, Alive) }
func (d *delegate) NotifyLeave(n *memberlist.Node)  { d.record(n, Failed) }

func (d *delegate) record(n *memberlist.Node, s State) {
	m, err := decodeMeta(n.Meta)
	if err != nil { // NotifyAlive let it pass, so it was well-formed
		d.log.Error("member with unreadable metadata", "member", n.Name, "error", err)
		return
	}
	if n.Name == d.name {
		d.mu.Lock()
		d.addr = n.Address()
		d.mu.Unlock()
	}
	// memberlist tells leaving from failing in a field that it does not export; the leaver says so in its metadata first.
	if s == Failed && m.leaving {
		s = Left
	}
	d.table.put(Member{Meta: m.Meta, GossipAddr: n.Address(), State: s})
}

// NotifyAlive implements memberlist.AliveDelegate: every word about a live member passes here first.
func (d *delegate) NotifyAlive(n *memberlist.Node) error {
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return err
	}
	if nodeName(m.ID) != n.Name {
		return fmt.Errorf("%w: broker %d under the name %q", errMeta, m.ID, n.Name)
	}
	return d.checkCluster(m, n.Address())
}

// NotifyMerge implements memberlist.MergeDelegate: the members known to the broker that this one joins, or that joins this one.
func (d *delegate) NotifyMerge(nodes []*memberlist.Node) error {
	for _, n := range nodes {
		m, err := decodeMeta(n.Meta)
		if err != nil {
			return err
		}
		if err := d.checkCluster(m, n.Address()); err != nil {
			return err
		}
		gone := n.State == memberlist.StateDead || n.State == memberlist.StateLeft
		if local := d.localAddr(); n.Name == d.name && !gone && local != "" && n.Address() != local {
			return d.refuse(d.duplicate(m, n.Address()))
		}
	}
	return nil
}

// NotifyConflict implements memberlist.ConflictDelegate: two addresses claim one name.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	if existing.Name != d.name {
		d.log.Warn("two brokers claim the same ID", "broker", existing.Name, "known", existing.Address(), "refused", other.Address())
		return
	}
	m, err := decodeMeta(other.Meta)
	if err != nil {
		m = &wireMeta{}
	}
	_ = d.refuse(d.duplicate(m, other.Address()))
}

func (d *delegate) duplicate(m *wireMeta, addr string) *refusal {
	return &refusal{addr: addr, err: fmt.Errorf("%w: broker %s is alive at %s (incarnation %s; this one is %s): give this broker another ID, or stop the other",
		ErrDuplicateID, d.name, addr, m.Incarnation, d.currentMeta().Incarnation)}
}

// checkCluster refuses members of another cluster. A broker without a cluster takes the first that it sees for its own, so that it never
// becomes a bridge between two.
func (d *delegate) checkCluster(m *wireMeta, addr string) error {
	if m.ClusterID == "" {
		return nil
	}
	d.mu.Lock()
	own := d.meta.ClusterID
	if own == "" {
		own = d.cluster
	}
	if own == "" {
		d.cluster = m.ClusterID
	}
	d.mu.Unlock()
	if own == "" || own == m.ClusterID {
		return nil
	}
	return d.refuse(&refusal{err: fmt.Errorf("%w: broker %d at %s is of cluster %s, broker %s of cluster %s",
		ErrForeignCluster, m.ID, addr, m.ClusterID, d.name, own)})
}

func (d *delegate) refuse(r *refusal) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	// That somebody else's broker knocked must not hide a duplicate that this broker has to act on.
	if d.refusal == nil || !errors.Is(d.refusal.err, ErrDuplicateID) {
		d.refusal = r
	}
	select {
	case d.notice <- struct{}{}:
	default:
	}
	return r.err
}

func (d *delegate) takeRefusal() *refusal {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.refusal
	d.refusal = nil
	return r
}
