package broker

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/kafka"
	"github.com/flotilla-log/flotilla/broker/metrics"
)

// KafkaListener is one more listener for Kafka clients, under a name of its own. A client is told the addresses of that name of all brokers, so every
// broker that its clients shall reach needs a listener of the same name.
type KafkaListener struct {
	// Name is in capitals. The listener of Config.KafkaAddr is called PLAINTEXT.
	Name string
	// Addr is where it listens (host:port); Advertise is what clients are told: host:port or just host; empty: as AdvertiseHost says.
	Addr, Advertise string
}

const (
	// maxKafkaListeners bounds the listeners with names, which travel in every gossip message about the broker.
	maxKafkaListeners   = 8
	maxKafkaListenerLen = 32
)

// ParseKafkaListener reads NAME=host:port[,advertised=host:port].
func ParseKafkaListener(s string) (KafkaListener, error) {
	wrong := func(what string) (KafkaListener, error) {
		return KafkaListener{}, fmt.Errorf("%w: Kafka listener %q: %s; it is NAME=host:port, and may go on with ,advertised=host:port", ErrConfig, s, what)
	}
	name, rest, ok := strings.Cut(s, "=")
	if !ok {
		return wrong("there is no =")
	}
	l := KafkaListener{Name: strings.ToUpper(strings.TrimSpace(name))}
	addr, option, more := strings.Cut(rest, ",")
	l.Addr = strings.TrimSpace(addr)
	if more {
		if l.Advertise, ok = strings.CutPrefix(strings.TrimSpace(option), "advertised="); !ok || l.Advertise == "" {
			return wrong(fmt.Sprintf("%q is not understood", option))
		}
	}
	if err := l.check(); err != nil {
		return KafkaListener{}, err
	}
	return l, nil
}

func (l *KafkaListener) check() error {
	valid := func(r rune) bool {
		return r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.'
	}
	switch {
	case l.Name == "" || len(l.Name) > maxKafkaListenerLen || strings.ContainsFunc(l.Name, func(r rune) bool { return !valid(r) }):
		return fmt.Errorf("%w: %q is no name for a Kafka listener: use up to %d capital letters, digits, '_', '-' and '.'", ErrConfig, l.Name, maxKafkaListenerLen)
	case !validHostPort(l.Addr):
		return fmt.Errorf("%w: the address %q of Kafka listener %s is not host:port", ErrConfig, l.Addr, l.Name)
	case strings.ContainsAny(l.Advertise, ",= ") || strings.Contains(l.Advertise, ":") && !validHostPort(l.Advertise) && net.ParseIP(l.Advertise) == nil:
		return fmt.Errorf("%w: the advertised address %q of Kafka listener %s is not host:port", ErrConfig, l.Advertise, l.Name)
	}
	return nil
}

// checkKafkaListeners finds what is wrong with all of them together.
func (c *Config) checkKafkaListeners() (errs []error) {
	if n := len(c.KafkaListeners); n > maxKafkaListeners {
		errs = append(errs, fmt.Errorf("%w: %d Kafka listeners have names; at most %d may", ErrConfig, n, maxKafkaListeners))
	}
	names := map[string]bool{}
	addrs := map[string]string{}
	claim := func(name, addr string) {
		if names[name] {
			errs = append(errs, fmt.Errorf("%w: there are two Kafka listeners %s: every listener of a broker needs a name of its own", ErrConfig, name))
		}
		names[name] = true
		if _, port, err := net.SplitHostPort(addr); err == nil && port != "0" {
			if other, taken := addrs[addr]; taken {
				errs = append(errs, fmt.Errorf("%w: the Kafka listeners %s and %s have the same address %s", ErrConfig, other, name, addr))
			}
			addrs[addr] = name
		}
	}
	if c.KafkaAddr != "" {
		claim(api.DefaultKafkaListener, c.KafkaAddr)
	}
	for i := range c.KafkaListeners {
		l := &c.KafkaListeners[i]
		if err := l.check(); err != nil {
			errs = append(errs, err)
		}
		if l.Name == api.DefaultKafkaListener && c.KafkaAddr == "" {
			errs = append(errs, fmt.Errorf("%w: %s is the name of the listener that the Kafka address sets; set that instead", ErrConfig, l.Name))
		}
		claim(l.Name, l.Addr)
	}
	return errs
}

// kafkaListener is a listener that is open.
type kafkaListener struct {
	name, advertised string
	ln               net.Listener
}

// listenKafka takes the ports for Kafka clients.
func (b *Broker) listenKafka() error {
	all := slices.Clone(b.cfg.KafkaListeners)
	if b.cfg.KafkaAddr != "" {
		all = append(all, KafkaListener{Name: api.DefaultKafkaListener, Addr: b.cfg.KafkaAddr, Advertise: b.cfg.AdvertiseKafkaAddr})
	}
	for _, l := range all {
		ln, err := net.Listen("tcp", l.Addr)
		if err != nil {
			return fmt.Errorf("for Kafka clients, listener %s: %w", l.Name, err)
		}
		b.closers = append(b.closers, func() { _ = ln.Close() })
		b.kafkaLns = append(b.kafkaLns, kafkaListener{l.Name, advertised(l.Advertise, b.cfg.AdvertiseHost, ln.Addr()), ln})
	}
	slices.SortFunc(b.kafkaLns, func(x, y kafkaListener) int { return strings.Compare(x.name, y.name) })
	return nil
}

// kafkaAddrs are the addresses that clients are told: of the listener without a name of its own, and of the others as api.Endpoint has them.
func (b *Broker) kafkaAddrs() (plain, named string) {
	var list []string
	for _, l := range b.kafkaLns {
		if l.name == api.DefaultKafkaListener {
			plain = l.advertised
			continue
		}
		list = append(list, l.name+"="+l.advertised)
	}
	return plain, strings.Join(list, ",")
}

// KafkaAddr is the address that Kafka clients are told by the listener PLAINTEXT; empty without it.
func (b *Broker) KafkaAddr() string {
	plain, _ := b.kafkaAddrs()
	return plain
}

func (b *Broker) serveKafka() error {
	if len(b.kafkaLns) == 0 {
		return nil
	}
	b.kafka = kafka.New(b.metrics.Observe(b, metrics.ListenerKafka), kafka.Options{
		Self: b.cfg.ID, MaxMessageBytes: b.cfg.Memory.MaxMessageBytes, MaxFetchBytes: b.cfg.Memory.FetchBytes,
		AppendTimeout: b.cfg.Timing.AppendTimeout,
		OnRequest:     b.metrics.Requests(metrics.ListenerKafka),
		Logger:        b.log.Named("kafka"),
	})
	b.wg.Go(func() {
		var g errgroup.Group
		for _, l := range b.kafkaLns {
			g.Go(func() error {
				err := b.kafka.Serve(l.name, l.ln)
				if err != nil {
					b.fail(fmt.Errorf("serving Kafka clients: %w", err))
				}
				return err
			})
		}
		_ = g.Wait()
	})
	return nil
}

// kafkaListeners is advertised.listeners.
func (b *Broker) kafkaListeners() string {
	var list []string
	for _, l := range b.kafkaLns {
		list = append(list, l.name+"://"+l.advertised)
	}
	return strings.Join(list, ",")
}

// KafkaListening says where each Kafka listener listens.
func (b *Broker) KafkaListening() map[string]net.Addr {
	out := map[string]net.Addr{}
	for _, l := range b.kafkaLns {
		out[l.name] = l.ln.Addr()
	}
	return out
}

// listenerGaps says where the brokers differ in the names of their Kafka listeners: a client that comes by one of these cannot reach all brokers.
func listenerGaps(brokers []api.Endpoint) []string {
	have := map[string][]api.BrokerID{}
	for _, e := range brokers {
		for _, a := range e.KafkaAddrs() {
			have[a.Listener] = append(have[a.Listener], e.ID)
		}
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(have)) {
		for _, e := range brokers {
			if !slices.Contains(have[name], e.ID) {
				out = append(out, fmt.Sprintf("broker %d has no Kafka listener %s", e.ID, name))
			}
		}
	}
	return out
}

// warnOfListenerGaps is called once, when this broker knows of the others.
func (b *Broker) warnOfListenerGaps() {
	var brokers []api.Endpoint
	for _, r := range b.node.State().SortedBrokers() {
		brokers = append(brokers, registered(r))
	}
	for _, gap := range listenerGaps(brokers) {
		b.log.Warn("Kafka clients cannot reach all brokers by this listener", "problem", gap)
	}
}
