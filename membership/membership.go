// Package membership tells which brokers are there, by gossip (hashicorp/memberlist): who joined, left or failed, with each one's
// addresses, rack and version. It only reports; deciding what follows from it is the business of the cluster's metadata.
//
// A member's name is its broker ID, so an ID can be alive only once. Members of another cluster are kept out: a broker
// that knows its cluster refuses them, and one that does not yet know it keeps to the first cluster that it meets.
package membership

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

// Errors of New and UpdateMeta.
var (
	// ErrDuplicateID: a broker with the same ID is alive elsewhere. Give this one another ID, or stop the other.
	ErrDuplicateID = errors.New("membership: broker ID is in use")
	// ErrForeignCluster: the brokers to join belong to another cluster. Correct the addresses, or the data directory.
	ErrForeignCluster = errors.New("membership: other cluster")
	// ErrMetaTooLarge: addresses, rack and version do not fit in 512 bytes.
	ErrMetaTooLarge = errors.New("membership: metadata too large")
	// ErrBind: the gossip address cannot be listened on.
	ErrBind = errors.New("membership: cannot listen")
	// ErrClosed: the membership is closed.
	ErrClosed = errors.New("membership: closed")
)

// label keeps other users of memberlist out.
const label = "flotilla"

// Config says how to take part.
type Config struct {
	Meta Meta
	// BindAddr is host:port for TCP and UDP; port 0 picks one.
	BindAddr string
	// AdvertiseAddr is host:port, or just a host, that others should use; empty: BindAddr.
	AdvertiseAddr string
	// Join lists gossip addresses (host:port) of brokers of the cluster. They are asked again every RejoinEvery.
	Join []string
	// RejoinEvery defaults to 15 s; as long as nobody was found it is 1 s.
	RejoinEvery time.Duration
	// OnEvent is called from one goroutine, one event at a time, in order; also for this broker itself. It may block, and must not call Close.
	OnEvent func(Event)
	// OnConflict is called (one call at a time; it must not call Close) when, after New, a broker of another
	// cluster or with this broker's ID shows up. It was refused; the cluster goes on with whom it knew first.
	OnConflict func(error)
	// Fast shortens all times for clusters on one machine: failures are noticed in about two seconds.
	Fast   bool
	Logger hclog.Logger
	// Transport is used instead of sockets, for simulated networks; BindAddr then only says where this broker is reached. nil: the operating system's network.
	Transport Transport
}

// Transport carries memberlist's packets and streams.
type Transport = memberlist.Transport

// Membership is this broker's part in the gossip. Two goroutines belong to it, the dispatcher of events and the rejoiner; Close
// stops both through done and waits. No lock of it is held while memberlist is called.
type Membership struct {
	cfg      Config
	log      hclog.Logger
	ml       *memberlist.Memberlist
	delegate *delegate
	table    *table

	updates gate // one UpdateMeta or Leave at a time
	close   sync.Once
	closed  bool // under updates
	done    chan struct{}
	wg      sync.WaitGroup
}

// gate is a mutex that is held while memberlist waits for other brokers. Waiting for it is a wait on a channel, during which the clock of testing/synctest goes on.
type gate chan struct{}

func (g gate) Lock()   { g <- struct{}{} }
func (g gate) Unlock() { <-g }

// New listens, tells the brokers of cfg.Join, and returns. That none of them answers is no error: they are asked again for as long as it
// lives. ErrDuplicateID, ErrForeignCluster, ErrMetaTooLarge, ErrBind.
func New(ctx context.Context, cfg Config) (*Membership, error) {
	m, err := listen(cfg)
	if err != nil {
		return nil, err
	}
	if err := m.judge(m.join(ctx)); err != nil {
		m.shutdown()
		return nil, err
	}
	m.wg.Add(2)
	go m.dispatch()
	go m.rejoin()
	return m, nil
}

func listen(cfg Config) (*Membership, error) {
	if err := cfg.Meta.validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if cfg.RejoinEvery <= 0 {
		cfg.RejoinEvery = 15 * time.Second
	}
	m := &Membership{cfg: cfg, log: cfg.Logger, table: newTable(time.Now), updates: make(gate, 1), done: make(chan struct{})}
	var err error
	if m.delegate, err = newDelegate(cfg.Meta, m.table, cfg.Logger); err != nil {
		return nil, err
	}
	mc, err := m.memberlistConfig()
	if err != nil {
		return nil, err
	}
	if mc.Transport == nil {
		if mc.Transport, err = m.listen(mc); err != nil {
			return nil, fmt.Errorf("%w: gossip on %s (TCP and UDP): %w", ErrBind, cfg.BindAddr, err)
		}
	}
	if m.ml, err = memberlist.Create(mc); err != nil {
		_ = mc.Transport.Shutdown()
		return nil, fmt.Errorf("%w: gossip on %s (TCP and UDP): %w", ErrBind, cfg.BindAddr, err)
	}
	return m, nil
}

// judge turns a refusal into the error to report. A duplicate that does not answer is an earlier life of
// this broker, at an address that it had then: the others will notice its end in a few seconds, and rejoin tries until then.
func (m *Membership) judge(r *refusal) error {
	if r == nil || r.addr != "" && !m.answers(r.addr) {
		return nil
	}
	return r.err
}

// answers asks whether a broker with this one's ID really is at addr.
func (m *Membership) answers(addr string) bool {
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return false
	}
	_, err = m.ml.Ping(m.delegate.name, udp)
	return err == nil
}

// Members returns all known members in all states, by ID, this broker included. Members that failed or left are
// forgotten after a day.
func (m *Membership) Members() []Member { return m.table.all() }

// Member returns the member with that ID.
func (m *Membership) Member(id int32) (Member, bool) { return m.table.get(id) }

// LocalAddr is the gossip address as advertised.
func (m *Membership) LocalAddr() string { return m.delegate.localAddr() }

func (m *Membership) checkMeta(meta Meta) error {
	if err := meta.validate(); err != nil {
		return err
	}
	if meta.ID != m.cfg.Meta.ID || meta.Incarnation != m.cfg.Meta.Incarnation {
		return errors.New("membership: a broker's ID and incarnation cannot change")
	}
	return nil
}

// UpdateMeta changes what this broker tells about itself: cluster ID, bootstrap set, addresses, rack, version. ID and incarnation cannot
// change. It returns when the news is on its way, after at most a second. ErrMetaTooLarge, ErrClosed.
func (m *Membership) UpdateMeta(meta Meta) error {
	if err := m.checkMeta(meta); err != nil {
		return err
	}
	return m.update(time.Second, func(w *wireMeta) { w.Meta = meta })
}

// TellNow is UpdateMeta for news that somebody waits for: it exchanges everything with the given brokers at once, instead of leaving it to gossip's next rounds, and
// returns when they have it or cannot be reached. It is for a few brokers.
func (m *Membership) TellNow(meta Meta, ids []int32) error {
	if err := m.checkMeta(meta); err != nil {
		return err
	}
	if err := m.update(time.Nanosecond, func(w *wireMeta) { w.Meta = meta }); err != nil {
		return err
	}
	var addrs []string
	for _, id := range ids {
		if o, ok := m.Member(id); ok && id != meta.ID && o.State == Alive {
			addrs = append(addrs, o.GossipAddr)
		}
	}
	_ = m.exchange(addrs) // who could not be reached hears it from others
	return nil
}

// update changes the metadata and waits until it is on its way, for no longer than patience.
func (m *Membership) update(patience time.Duration, change func(*wireMeta)) error {
	m.updates.Lock()
	defer m.updates.Unlock()
	if m.closed {
		return ErrClosed
	}
	w := m.delegate.currentMeta()
	change(&w)
	if err := m.delegate.setMeta(w); err != nil {
		return err
	}
	// Its only error is that nobody took the message within the time; anti-entropy delivers it later.
	if err := m.ml.UpdateNode(patience); err != nil {
		m.log.Debug("metadata update not yet delivered", "error", err)
	}
	return nil
}

// Leave says goodbye, so that others report EventLeft instead of EventFailed, and waits until that is on its way. Call Close afterwards.
func (m *Membership) Leave(ctx context.Context) error {
	// First the metadata that says so, then the message that ends the membership: whoever gets only the latter sees a failure.
	if err := m.update(time.Second, func(w *wireMeta) { w.leaving = true }); err != nil {
		return err
	}
	timeout := 2 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(min(timeout, time.Until(deadline)), time.Millisecond)
	}
	m.updates.Lock()
	defer m.updates.Unlock()
	if m.closed {
		return ErrClosed
	}
	if err := m.ml.Leave(timeout); err != nil {
		return fmt.Errorf("membership: leave: %w", err)
	}
	return nil
}

// Close ends everything without a goodbye, and waits for OnEvent to return.
func (m *Membership) Close() error {
	m.close.Do(func() {
		close(m.done)
		m.shutdown()
		m.wg.Wait()
	})
	return nil
}

func (m *Membership) shutdown() {
	m.updates.Lock()
	m.closed = true
	m.updates.Unlock()
	if err := m.ml.Shutdown(); err != nil {
		m.log.Warn("gossip shutdown", "error", err)
	}
}

// dispatch delivers events until Close.
func (m *Membership) dispatch() {
	defer m.wg.Done()
	for {
		select {
		case <-m.done:
			return
		case <-m.table.wake:
		}
		for {
			e, ok := m.table.next()
			if !ok {
				break
			}
			m.log.Debug("member", "id", e.Member.ID, "event", e.Type, "state", e.Member.State)
			if m.cfg.OnEvent != nil {
				m.cfg.OnEvent(e)
			}
		}
	}
}

func hostPort(addr string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(p, 10, 16)
	return host, int(n), err
}
