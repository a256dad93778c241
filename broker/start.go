package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/controller"
	"github.com/flotilla-log/flotilla/broker/grpcapi"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/broker/metrics"
	"github.com/flotilla-log/flotilla/membership"
	"github.com/flotilla-log/flotilla/partition/stable"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// Start locks the data directory, brings all parts up and returns when the listeners accept requests; the broker may then still be waiting for
// its cluster (see Ready). On an error everything is closed again. ctx bounds the start only. Shutdown and Kill may be called meanwhile: they end the start, with ErrStopped, and wait for that.
//
// The order: what can refuse the start for a mistake of the operator comes first (directory, identity, ports), then each part after those it
// calls. Peers may connect from the transport's step on; groups that are not open yet refuse them and are asked again.
func (b *Broker) Start(ctx context.Context) error {
	ctx, end, err := b.life.begin(ctx)
	if err != nil {
		return fmt.Errorf("broker %d: %w", b.cfg.ID, err)
	}
	defer end()
	for _, step := range []func(context.Context) error{
		b.openDataDir,
		b.listen,
		// Votes before anything that could vote.
		b.openStable,
		b.openTransport,
		b.openMetadata,
		// The replicas that the metadata on this disk knows open at once; they need nobody's word for it.
		b.openReplicas,
		// Gossip brings events, which the parts before it must be there for.
		b.startGossip,
		b.startController,
		b.serve,
	} {
		if err := step(ctx); err != nil { // it says which part it comes from
			return b.unwind(err)
		}
		if err := b.life.goOn(); err != nil {
			return b.unwind(err)
		}
	}
	b.up.Store(true)
	b.wg.Go(b.becomeReady)
	b.wg.Go(b.scrub)
	b.wg.Go(b.leaveFullDisk)
	b.wg.Go(b.compareLoop)
	return nil
}

// unwind closes what a start that ends early has opened.
func (b *Broker) unwind(err error) error {
	if b.server != nil {
		now, cancel := context.WithCancel(context.Background())
		cancel()
		b.stopFronts(now)
	}
	b.stopAll()
	if stopped := b.life.goOn(); stopped != nil && !errors.Is(err, ErrStopped) {
		err = errors.Join(stopped, err)
	}
	return fmt.Errorf("broker %d: %w", b.cfg.ID, err)
}

func (b *Broker) openDataDir(context.Context) error {
	lock, err := lockDataDir(b.cfg.Seams.FS, b.cfg.DataDir)
	if err != nil {
		return err
	}
	b.closers = append(b.closers, func() { _ = lock.Close() })
	if err := checkDataDir(b.cfg.Seams.FS, b.cfg.DataDir); err != nil {
		return err
	}
	b.identity, err = metadata.OpenIdentityOn(b.cfg.Seams.FS, b.cfg.DataDir, b.cfg.ID)
	return err
}

// listen takes the ports; nobody is accepted yet.
func (b *Broker) listen(context.Context) error {
	var err error
	if b.grpcLn, err = listenOn(b.cfg.Seams.GRPCListener, b.cfg.GRPCAddr); err != nil {
		return fmt.Errorf("listening for clients: %w", err)
	}
	b.closers = append(b.closers, func() { _ = b.grpcLn.Close() })
	if b.peerLn, err = listenOn(b.cfg.Seams.PeerListener, b.cfg.PeerAddr); err != nil {
		return fmt.Errorf("listening for brokers: %w", err)
	}
	b.closers = append(b.closers, func() { _ = b.peerLn.Close() })
	if err := b.listenKafka(); err != nil {
		return err
	}
	if err := b.listenMetrics(); err != nil {
		return err
	}
	b.grpcAddr = advertised(b.cfg.AdvertiseGRPCAddr, b.cfg.AdvertiseHost, b.grpcLn.Addr())
	b.peerAddr = advertised(b.cfg.AdvertisePeerAddr, b.cfg.AdvertiseHost, b.peerLn.Addr())
	return nil
}

func listenOn(given net.Listener, addr string) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return net.Listen("tcp", addr)
}

// advertised is the address that others are told: explicit (host:port or just host), else the common host, else the address listened on, where
// "everywhere" becomes this machine's first address that is not loopback.
func advertised(explicit, host string, listening net.Addr) string {
	lhost, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return listening.String()
	}
	if h, p, err := net.SplitHostPort(explicit); err == nil {
		return net.JoinHostPort(h, p)
	}
	switch {
	case explicit != "":
		return net.JoinHostPort(explicit, port)
	case host != "":
		return net.JoinHostPort(host, port)
	}
	if ip := net.ParseIP(lhost); ip != nil && ip.IsUnspecified() {
		lhost = outwardIP()
	}
	return net.JoinHostPort(lhost, port)
}

// outwardIP is the machine's first address that others may reach, or loopback if it has none.
func outwardIP() string {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return "127.0.0.1"
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return "127.0.0.1"
}

func (b *Broker) gossipAdvertise() string {
	if b.cfg.AdvertiseGossipAddr != "" {
		return b.cfg.AdvertiseGossipAddr
	}
	if b.cfg.AdvertiseHost != "" {
		return b.cfg.AdvertiseHost
	}
	host, _, err := net.SplitHostPort(b.cfg.GossipAddr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		return outwardIP()
	}
	return ""
}

func (b *Broker) openStable(context.Context) error {
	s, err := stable.OpenWith(stable.Options{
		Path: filepath.Join(b.cfg.DataDir, stableFile), Logger: b.log.Named("stable"), Backend: b.cfg.Seams.StableBackend,
		// Without votes on the disk no group of this broker can go on.
		OnFailure: func(err error) { b.fail(fmt.Errorf("storing terms and votes: %w", err)) },
	})
	if errors.Is(err, stable.ErrDamaged) {
		return fmt.Errorf("%w: whom this broker's replicas voted for is not known any more, so they must not come back under their names: "+
			"empty the whole data directory; the broker comes back as a new one, and its replicas are rebuilt from the others", err)
	}
	if err != nil {
		return err
	}
	b.stable = s
	b.closers = append(b.closers, func() { _ = s.Close() })
	return nil
}

func (b *Broker) openTransport(context.Context) error {
	t, err := transport.New(transport.Config{
		Local: metadata.ServerAddress(b.cfg.ID), ClusterID: b.identity.ClusterID, Learned: b.identity.Learn, Pledged: b.identity.Pledged,
		Listener: b.peerLn, Dial: b.cfg.Seams.DialPeer, Resolve: b.resolve, Logger: b.log.Named("transport"),
		CatchUpBytesPerSecond: b.cfg.CatchUpBytesPerSecond,
	})
	if err != nil {
		return err
	}
	b.transport = t
	b.closers = append(b.closers, func() { _ = t.Close() })
	b.handleCalls()
	return nil
}

func (b *Broker) openMetadata(context.Context) error {
	n, err := metadata.Open(metadata.Config{
		Dir: filepath.Join(b.cfg.DataDir, metadataDir), Identity: b.identity, Transport: b.transport,
		Stable:    b.stable.Group(metadata.Group),
		Stores:    b.cfg.Seams.MetadataStores,
		Timing:    metadata.Timing{Heartbeat: b.cfg.Timing.MetadataHeartbeat},
		OnFailure: func(err error) { b.fail(fmt.Errorf("metadata: %w", err)) },
		Logger:    b.log.Named("metadata"),
	})
	if err != nil {
		return err
	}
	b.node = n
	b.nodeRef.Store(n)
	b.closers = append(b.closers, func() { _ = n.Close() }, b.syncs.Close)
	return nil
}

func (b *Broker) openReplicas(context.Context) error {
	b.reporter = newReporter(b)
	m, err := newReplicaManager(b)
	if err != nil {
		return err
	}
	b.replicas = m
	b.closers = append(b.closers, func() { b.reporter.close(); m.close() })
	b.reporter.start()
	m.start()
	return nil
}

func (b *Broker) startController(context.Context) error {
	cfg := controller.Config{
		Node: b.node, Members: b.members.Load().Members, ReplaceAfter: b.cfg.ReplaceAfter,
		Now: b.cfg.Seams.Now, Logger: b.log.Named("controller"),
	}
	if b.cfg.Timing.FastGossip {
		cfg.Grace, cfg.Tick = 2*time.Second, 200*time.Millisecond
	}
	c := controller.New(cfg)
	b.controller.Store(c)
	b.closers = append(b.closers, c.Close)
	return nil
}

func (b *Broker) serve(context.Context) error {
	b.server = grpcapi.New(b.metrics.Observe(b, metrics.ListenerGRPC), grpcapi.Options{
		MaxMessageBytes: b.cfg.Memory.MaxMessageBytes, MaxFetchBytes: b.cfg.Memory.FetchBytes,
		AppendTimeout: b.cfg.Timing.AppendTimeout, Logger: b.log.Named("grpc"), OnRequest: b.metrics.Requests(metrics.ListenerGRPC),
	})
	b.wg.Go(func() {
		if err := b.server.Serve(b.grpcLn); err != nil {
			b.fail(fmt.Errorf("serving clients: %w", err))
		}
	})
	if err := b.serveKafka(); err != nil {
		return err
	}
	b.serveMetrics()
	return nil
}

// becomeReady waits until the broker is of use: it knows the cluster's metadata as of now, is registered in it, and its replicas are
// open (or have failed to open, which Status tells).
func (b *Broker) becomeReady() {
	for _, wait := range []func(context.Context) error{b.awaitSynced, b.awaitRegistered, b.replicas.awaitOpen} {
		if err := wait(b.ctx); err != nil {
			return
		}
	}
	b.warnOfListenerGaps()
	b.server.SetServing(true)
	b.log.Info("ready", "cluster", b.identity.ClusterID(), "grpc", b.grpcAddr, "kafka", b.kafkaListeners())
	close(b.ready)
}

func (b *Broker) awaitSynced(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, b.cfg.Timing.CallTimeout)
		changed := b.node.Changed()
		err := b.node.Sync(attempt)
		if err != nil && !errors.Is(err, metadata.ErrClosed) {
			select { // not before something has changed, or a moment has passed
			case <-changed:
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
			}
		}
		cancel()
		if err == nil {
			b.synced.Store(true)
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, metadata.ErrClosed) {
			return errors.Join(err, ctx.Err())
		}
	}
}

// awaitRegistered waits until this broker is on record and, for a moment, until all brokers that gossip shows are: a topic created right after the
// first start should find the whole cluster.
func (b *Broker) awaitRegistered(ctx context.Context) error {
	others := time.NewTimer(b.cfg.Timing.CreateWait)
	defer others.Stop()
	for {
		changed, gossip := b.node.Changed(), b.route.wait()
		self, all := b.registered()
		if all {
			return nil
		}
		patience := others.C
		if !self {
			patience = nil
		}
		select {
		case <-changed:
		case <-gossip:
		case <-patience:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// registered says whether this broker, and whether all that gossip shows, are on record with the addresses that they have now.
func (b *Broker) registered() (self, all bool) {
	brokers := b.node.State().Brokers
	self, all = isRegistered(brokers[b.cfg.ID], b.gossipMeta(nil)), true
	for _, m := range b.members.Load().Members() {
		if m.State == membership.Alive {
			all = all && isRegistered(brokers[api.BrokerID(m.ID)], m.Meta)
		}
	}
	return self, self && all
}

func isRegistered(r *metadata.Broker, m membership.Meta) bool {
	return r != nil && r.Incarnation == m.Incarnation && r.GRPCAddr == m.GRPCAddr && r.PeerAddr == m.PeerAddr &&
		r.KafkaAddr == m.KafkaAddr && r.KafkaListeners == m.KafkaListeners
}
