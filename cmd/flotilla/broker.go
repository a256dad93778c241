package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
)

// logOptions say how the processes that serve write their log. It always goes to standard error.
type logOptions struct {
	level  string
	format string
}

func (o *logOptions) register(fs *pflag.FlagSet) {
	fs.StringVar(&o.level, "log-level", "info", "log level: trace, debug, info, warn or error")
	fs.StringVar(&o.format, "log-format", outputText, "log format: text or json")
}

// newLogger makes the one logger of the process, of which every broker gets a Named one: they share the lock on standard error.
func (a *app) newLogger(o logOptions) (hclog.Logger, error) {
	level := hclog.LevelFromString(o.level)
	if level == hclog.NoLevel {
		return nil, usageErrorf("unknown log level %q: use trace, debug, info, warn or error", o.level)
	}
	if o.format != outputText && o.format != outputJSON {
		return nil, usageErrorf("unknown log format %q: use text or json", o.format)
	}
	return hclog.New(&hclog.LoggerOptions{
		Level: level, Output: a.stderr, JSONFormat: o.format == outputJSON, TimeFn: func() time.Time { return time.Now().UTC() },
		TimeFormat: "2006-01-02T15:04:05.000Z",
	}), nil
}

// brokerOptions are the flags of the broker command; toConfig turns them into the broker's configuration.
type brokerOptions struct {
	kafkaListeners  []string
	cfg             broker.Config
	id              int32
	inflight        byteSize
	tailCache       byteSize
	maxMessage      byteSize
	fetch           byteSize
	diskReserve     byteSize
	catchUp         byteSize
	scrub           byteSize
	log             logOptions
	shutdownTimeout time.Duration
}

const brokerLong = `Run one broker.

A new cluster begins when as many brokers as --bootstrap-expect says have found one another through --join;
once a data directory belongs to a cluster, --bootstrap-expect has no effect and may stay. Later brokers only --join.

When the broker belongs to its cluster and serves, it prints one line on standard output:

  ready grpc=HOST:PORT kafka=HOST:PORT

The log goes to standard error. SIGTERM and SIGINT stop it in order: leaderships are handed over first. A second signal
ends it at once, which loses nothing that was acknowledged.`

const brokerExample = `  # the first of three machines (the others: --id 2, --id 3 and their own --advertise-host)
  flotilla broker --id 1 --data-dir /var/lib/flotilla --advertise-host 10.0.0.1 \
    --bootstrap-expect 3 --join 10.0.0.1:7072,10.0.0.2:7072,10.0.0.3:7072

  # the same from a file
  flotilla broker --config /etc/flotilla.yaml`

func (a *app) brokerCommand() *cobra.Command {
	o := newBrokerOptions()
	cmd := &cobra.Command{
		Use:     "broker",
		Short:   "Run a broker",
		Long:    brokerLong,
		Example: brokerExample,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runBroker(cmd.Context(), o)
		},
	}
	o.register(cmd.Flags())
	return cmd
}

func newBrokerOptions() *brokerOptions {
	cfg := broker.DefaultConfig()
	return &brokerOptions{
		cfg: cfg, id: int32(cfg.ID),
		inflight: byteSize(cfg.Memory.InflightBytes), tailCache: byteSize(cfg.Memory.TailCacheBytes),
		maxMessage: byteSize(cfg.Memory.MaxMessageBytes), fetch: byteSize(cfg.Memory.FetchBytes), diskReserve: byteSize(cfg.DiskReserve),
		catchUp: byteSize(cfg.CatchUpBytesPerSecond), scrub: byteSize(cfg.Scrub.BytesPerSecond),
	}
}

func (o *brokerOptions) register(fs *pflag.FlagSet) {
	fs.SortFlags = false
	c := &o.cfg
	fs.Int32Var(&o.id, "id", o.id, "the broker's number, 0 or more, unique in the cluster and the same for the life of its data")
	fs.StringVar(&c.DataDir, "data-dir", c.DataDir, "directory for everything the broker keeps; one process at a time")
	fs.StringSliceVar(&c.Join, "join", nil, "gossip addresses of brokers of the cluster, one that answers is enough")
	fs.IntVar(&c.BootstrapExpect, "bootstrap-expect", 0, "make a new cluster once this many new brokers have met; 0: only join an existing one")
	fs.StringVar(&c.Rack, "rack", "", "failure domain that the replicas of a partition are spread over")
	fs.StringVar(&c.GRPCAddr, "grpc-addr", c.GRPCAddr, "address to listen on for clients")
	fs.StringVar(&c.KafkaAddr, "kafka-addr", c.KafkaAddr, "address to listen on for Kafka clients; empty: none")
	fs.StringArrayVar(&o.kafkaListeners, "kafka-listener", nil, "a further listener for Kafka clients, NAME=host:port[,advertised=host:port]; may be repeated")
	fs.StringVar(&c.MetricsAddr, "metrics-addr", defaultMetricsAddr, "address to serve Prometheus metrics on (/metrics); empty: none")
	fs.BoolVar(&c.Profiles, "pprof", false, "serve /debug/pprof there, too")
	fs.StringVar(&c.PeerAddr, "peer-addr", c.PeerAddr, "address to listen on for other brokers")
	fs.StringVar(&c.GossipAddr, "gossip-addr", c.GossipAddr, "address for membership gossip, TCP and UDP")
	fs.StringVar(&c.AdvertiseHost, "advertise-host", "", "host that others reach this broker at; needed unless the addresses above name one")
	fs.StringVar(&c.AdvertiseGRPCAddr, "advertise-grpc-addr", "", "what clients are told, where it differs from --advertise-host and the port")
	fs.StringVar(&c.AdvertiseKafkaAddr, "advertise-kafka-addr", "", "the same for Kafka clients")
	fs.StringVar(&c.AdvertisePeerAddr, "advertise-peer-addr", "", "the same for other brokers")
	fs.StringVar(&c.AdvertiseGossipAddr, "advertise-gossip-addr", "", "the same for gossip")
	o.registerPolicies(fs)
	o.registerLimits(fs)
	o.log.register(fs)
	fs.DurationVar(&o.shutdownTimeout, "shutdown-timeout", 20*time.Second, "bound of the orderly part of stopping")
}

func (o *brokerOptions) registerPolicies(fs *pflag.FlagSet) {
	c := &o.cfg
	fs.Int32Var(&c.DefaultPartitions, "default-partitions", c.DefaultPartitions, "partitions of topics created without saying")
	fs.Int16Var(&c.DefaultReplicationFactor, "default-replication-factor", c.DefaultReplicationFactor, "replicas of topics created without saying; 0: 3, or the number of brokers if that is less")
	fs.BoolVar(&c.AutoCreateTopics, "auto-create-topics", c.AutoCreateTopics, "let Kafka clients create a topic by asking for it")
	fs.Int32Var(&c.OffsetsPartitions, "offsets-partitions", c.OffsetsPartitions, "partitions of the internal topic of consumer groups, when it is created")
	fs.Int16Var(&c.OffsetsReplicationFactor, "offsets-replication-factor", c.OffsetsReplicationFactor, "its replicas; 0: 3, or the number of brokers if that is less")
	fs.DurationVar(&c.ReplaceAfter, "replace-after", c.ReplaceAfter, "rebuild the replicas of a broker that stays away for so long; negative: never")
	fs.BoolVar(&c.AutoBalanceLeaders, "auto-balance-leaders", c.AutoBalanceLeaders, "give leadership back to preferred leaders")
}

func (o *brokerOptions) registerLimits(fs *pflag.FlagSet) {
	t := &o.cfg.Timing
	fs.Var(&o.inflight, "inflight-bytes", "most bytes of batches received and not yet acknowledged; producers wait beyond it")
	fs.Var(&o.tailCache, "tail-cache-bytes", "most bytes of newest entries kept in memory, over all partitions")
	fs.Var(&o.maxMessage, "max-message-bytes", "the most that a topic's max.message.bytes may be")
	fs.Var(&o.fetch, "fetch-bytes", "the most that one fetch response carries")
	fs.Var(&o.catchUp, "catch-up-bytes-per-second", "most bytes a second sent to replicas that are far behind, such as new ones; 0: no limit")
	fs.Var(&o.diskReserve, "disk-reserve", "free disk space below which produce requests are refused")
	fs.Var(&o.scrub, "scrub-bytes-per-second", "rate at which stored segments are checked for damage in the background")
	fs.DurationVar(&o.cfg.Scrub.Every, "scrub-every", o.cfg.Scrub.Every, "pause between two such checks of everything")
	fs.DurationVar(&o.cfg.CompareEvery, "compare-every", o.cfg.CompareEvery, "how often leaders compare their state with that of the other replicas; negative: never")
	fs.DurationVar(&t.Heartbeat, "heartbeat", t.Heartbeat, "raft's own timeout for partitions, the last resort: brokers that died or stand still are noticed within a second")
	fs.DurationVar(&t.MetadataHeartbeat, "metadata-heartbeat", t.MetadataHeartbeat, "the same for the metadata group")
	fs.DurationVar(&t.AppendTimeout, "append-timeout", t.AppendTimeout, "bound of an append whose client set none")
	fs.DurationVar(&t.PreferredAfter, "preferred-after", t.PreferredAfter, "how long a preferred leader must have been back before it leads again")
	fs.DurationVar(&t.HandOver, "hand-over", t.HandOver, "bound of handing leaderships over when stopping")
	fs.BoolVar(&t.FastGossip, "fast-gossip", false, "notice failures sooner at the price of traffic; for brokers on one machine")
}

// defaultMetricsAddr is on loopback: metrics name topics, and whoever wants them from elsewhere has to say so.
var defaultMetricsAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(broker.DefaultMetricsPort))

// toConfig completes the configuration and checks it; errors are about usage.
func (o *brokerOptions) toConfig() (broker.Config, error) {
	cfg := o.cfg
	cfg.ID = api.BrokerID(o.id)
	cfg.Version = buildVersion().Version
	cfg.Memory.InflightBytes = int64(o.inflight)
	cfg.Memory.TailCacheBytes = int64(o.tailCache)
	cfg.Memory.MaxMessageBytes = int(o.maxMessage)
	cfg.Memory.FetchBytes = int(o.fetch)
	cfg.DiskReserve = int64(o.diskReserve)
	for _, s := range o.kafkaListeners {
		l, err := broker.ParseKafkaListener(s)
		if err != nil {
			return cfg, withCode(exitUsage, err)
		}
		cfg.KafkaListeners = append(cfg.KafkaListeners, l)
	}
	if cfg.CatchUpBytesPerSecond = int64(o.catchUp); o.catchUp == 0 {
		cfg.CatchUpBytesPerSecond = -1 // there, 0 is the default
	}
	cfg.Scrub.BytesPerSecond = int64(o.scrub)
	// A second broker on this machine starts without metrics rather than not at all, unless somebody asked for the address.
	cfg.MetricsOptional = cfg.MetricsAddr == defaultMetricsAddr
	return cfg, withCode(exitUsage, cfg.Validate())
}

func (a *app) runBroker(ctx context.Context, o *brokerOptions) error {
	cfg, err := o.toConfig()
	if err != nil {
		return err
	}
	logger, err := a.newLogger(o.log)
	if err != nil {
		return err
	}
	cfg.Logger = logger.Named(fmt.Sprintf("broker-%d", o.id))
	cfg.Logger.Info("starting", "version", cfg.Version, "id", o.id, "data_dir", cfg.DataDir, "pid", os.Getpid())
	b, err := broker.New(cfg)
	if err != nil {
		return withCode(exitUsage, err)
	}
	if err := b.Start(ctx); err != nil {
		return err
	}
	pacing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { collectLess(pacing) })
	defer wg.Wait()
	defer stop()
	return a.serve(ctx, []*broker.Broker{b}, o.shutdownTimeout)
}
