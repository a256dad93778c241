package membership

import (
	"context"
	"fmt"
	"log"
	"net"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
	"golang.org/x/sync/errgroup"
)

const (
	lonelyRejoinEvery = time.Second            // as long as nobody was found,
	firstRejoin       = 100 * time.Millisecond // at first sooner: brokers of a new cluster start at about the same time
	resolveTimeout    = 5 * time.Second
)

func (m *Membership) memberlistConfig() (*memberlist.Config, error) {
	host, port, err := hostPort(m.cfg.BindAddr)
	if err != nil {
		return nil, fmt.Errorf("%w: gossip address %q: %w", ErrBind, m.cfg.BindAddr, err)
	}
	if host, err = resolveOne(host); err != nil {
		return nil, fmt.Errorf("%w: gossip address %q: %w", ErrBind, m.cfg.BindAddr, err)
	}
	c := memberlist.DefaultLANConfig()
	c.Name, c.Label = m.delegate.name, label
	c.BindAddr, c.BindPort = host, port
	c.Delegate, c.Events, c.Alive, c.Merge, c.Conflict = m.delegate, m.delegate, m.delegate, m.delegate, m.delegate
	c.Logger = standardLogger(m.log)
	c.Transport = m.cfg.Transport
	c.EnableCompression = false // the messages are small
	c.TCPTimeout = 3 * time.Second
	// A broker that was seen to fail may come back with another address at once.
	c.DeadNodeReclaimTime = time.Nanosecond
	if m.cfg.Fast {
		c.ProbeInterval, c.ProbeTimeout = 300*time.Millisecond, 200*time.Millisecond
		c.SuspicionMult, c.SuspicionMaxTimeoutMult = 3, 3
		c.GossipInterval, c.PushPullInterval = 50*time.Millisecond, 5*time.Second
		c.AwarenessMaxMultiplier = 2
	}
	return c, m.advertise(c)
}

// listenAttempts is how often a free port is looked for that is free for both TCP and UDP.
const listenAttempts = 10

// listen takes the ports, as memberlist does it by itself, and puts the guard before them.
func (m *Membership) listen(c *memberlist.Config) (memberlist.Transport, error) {
	var err error
	for range listenAttempts {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{c.BindAddr}, BindPort: c.BindPort, Logger: c.Logger})
		if err == nil {
			if c.BindPort == 0 {
				c.BindPort = t.GetAutoBindPort()
				c.AdvertisePort = c.BindPort
			}
			return newGuard(t, func(from string, err error) { m.log.Debug("refused gossip", "from", from, "error", err) }), nil
		}
		if c.BindPort != 0 {
			break
		}
	}
	return nil, err
}

func (m *Membership) advertise(c *memberlist.Config) error {
	if m.cfg.AdvertiseAddr == "" {
		c.AdvertisePort = c.BindPort
		return nil
	}
	host, port, err := hostPort(m.cfg.AdvertiseAddr)
	if err != nil {
		host, port = m.cfg.AdvertiseAddr, c.BindPort
	}
	if host, err = resolveOne(host); err != nil {
		return fmt.Errorf("membership: advertised address %q: %w", m.cfg.AdvertiseAddr, err)
	}
	c.AdvertiseAddr, c.AdvertisePort = host, port
	return nil
}

// resolveOne makes an IP address of a host name. Empty means all addresses.
func resolveOne(host string) (string, error) {
	if host == "" {
		return "0.0.0.0", nil
	}
	if net.ParseIP(host) != nil {
		return host, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return "", err
	}
	return ips[0].IP.String(), nil
}

// standardLogger brings memberlist's "[LEVEL] memberlist: text" lines into hclog.
func standardLogger(l hclog.Logger) *log.Logger {
	return l.Named("gossip").StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true})
}

// joinAtOnce bounds the brokers that are asked at the same time.
const joinAtOnce = 8

// join contacts those of cfg.Join that are not members already, several at a time: one that has no power takes as long as a timeout. It returns why this broker and
// one of those refused each other, if so.
func (m *Membership) join(ctx context.Context) *refusal {
	if m.exchange(m.strangers(ctx)) == nil {
		return nil // a refusal, if there is one, was of somebody who knocked here
	}
	return m.delegate.takeRefusal()
}

// exchange tells brokers everything that is known, and learns what they know.
func (m *Membership) exchange(addrs []string) error {
	var asking errgroup.Group
	asking.SetLimit(joinAtOnce)
	for _, addr := range addrs {
		asking.Go(func() error { return m.joinOne(addr) })
	}
	return asking.Wait()
}

func (m *Membership) joinOne(addr string) error {
	select {
	case <-m.done:
		return nil
	default:
	}
	_, err := m.ml.Join([]string{addr})
	if err != nil {
		m.log.Debug("broker did not answer", "address", addr, "error", err)
	}
	return err
}

// strangers resolves cfg.Join and leaves out this broker and those known to be alive.
func (m *Membership) strangers(ctx context.Context) []string {
	known := map[string]bool{m.LocalAddr(): true}
	for _, o := range m.Members() {
		if o.State == Alive {
			known[o.GossipAddr] = true
		}
	}
	var out []string
	for _, addr := range m.cfg.Join {
		for _, a := range m.resolve(ctx, addr) {
			if !known[a] {
				known[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}

func (m *Membership) resolve(ctx context.Context, addr string) []string {
	host, port, err := hostPort(addr)
	if err != nil {
		m.log.Warn("address to join is not host:port", "address", addr)
		return nil
	}
	if net.ParseIP(host) != nil {
		return []string{addr}
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		m.log.Debug("address to join does not resolve", "address", addr, "error", err)
		return nil
	}
	out := make([]string, len(ips))
	for i, ip := range ips {
		out[i] = net.JoinHostPort(ip.IP.String(), strconv.Itoa(port))
	}
	return out
}

// lonely says that no other broker is alive.
func (m *Membership) lonely() bool {
	for _, o := range m.Members() {
		if o.State == Alive && o.ID != m.cfg.Meta.ID {
			return false
		}
	}
	return true
}

// rejoin looks for the configured brokers again and again: it heals a gossip that was split for longer than memberlist remembers
// the dead. It also reports refusals.
func (m *Membership) rejoin() {
	defer m.wg.Done()
	lonely := firstRejoin
	for {
		wait := m.cfg.RejoinEvery
		if m.lonely() {
			wait = min(wait, lonely)
			lonely = min(2*lonely, lonelyRejoinEvery)
		}
		timer := time.NewTimer(wait)
		select {
		case <-m.done:
			timer.Stop()
			return
		case <-m.delegate.notice:
			timer.Stop()
			m.report(m.judge(m.delegate.takeRefusal()))
		case <-timer.C:
			// memberlist's part cannot be cancelled; each attempt is bounded by timeouts.
			m.report(m.judge(m.join(context.Background())))
		}
	}
}

func (m *Membership) report(err error) {
	if err == nil {
		return
	}
	m.log.Error("refused a broker", "error", err)
	if m.cfg.OnConflict != nil {
		m.cfg.OnConflict(err)
	}
}
