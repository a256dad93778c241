package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
)

func (a *app) benchCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "bench",
		Short: "Measure a cluster",
		Long: `Measure a cluster: throughput, latency percentiles, bytes written to disk per byte produced, and CPU seconds per GB.

What brokers write and compute is read from /proc, so it is for brokers on this machine: --broker-pids lists their process IDs, or
says auto for every 'flotilla broker' and 'flotilla dev' that runs here.`,
		Example: "  flotilla bench produce --partitions 12 --duration 10s --broker-pids auto\n  flotilla bench latency --rate 2000 --duration 10s\n  flotilla bench produce --protocol kafka --partitions 6",
	}, a.benchProduceCommand(), a.benchConsumeCommand(), a.benchLatencyCommand())
}

// benchOptions are shared by the benchmarks.
type benchOptions struct {
	partitions  int32
	replication int32
	settings    []string
	keep        bool
	records     int64
	duration    time.Duration
	recordBytes byteSize
	batchBytes  byteSize
	linger      time.Duration
	compression string
	buffer      byteSize
	rate        float64
	protocol    string
	brokerPIDs  []string
	cpuProfile  string

	pids []int // what brokerPIDs says
}

func (o *benchOptions) registerCommon(fs *pflag.FlagSet) {
	fs.StringVar(&o.protocol, "protocol", protocolGRPC, "what to drive: grpc, or kafka (the listener of --kafka-addr)")
	fs.StringSliceVar(&o.brokerPIDs, "broker-pids", nil, "process IDs of the brokers on this machine, or auto")
	fs.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this command to a file, for go tool pprof")
}

func (o *benchOptions) registerTopic(fs *pflag.FlagSet) {
	fs.Int32Var(&o.partitions, "partitions", 12, "partitions of the topic, if it has to be created")
	fs.Int32Var(&o.replication, "replication-factor", 0, "its replicas; 0: the cluster's default")
	fs.StringArrayVar(&o.settings, "set", nil, "a setting KEY=VALUE of it, such as flush=os; may be repeated")
	fs.BoolVar(&o.keep, "keep", false, "keep the topic, if it was created here")
}

func (o *benchOptions) registerLoad(fs *pflag.FlagSet) {
	o.recordBytes, o.batchBytes, o.buffer = 1<<10, 256<<10, 64<<20
	fs.Int64Var(&o.records, "records", 0, "stop after so many records; 0: after --duration")
	fs.DurationVar(&o.duration, "duration", 10*time.Second, "stop after this long")
	fs.Var(&o.recordBytes, "record-bytes", "size of a record's value")
	fs.Var(&o.batchBytes, "batch-bytes", "size at which a batch is sent")
	fs.DurationVar(&o.linger, "linger", client.DefaultLinger, lingerHelp)
	fs.StringVar(&o.compression, "compression", "none", "none, gzip, snappy, lz4 or zstd; the values are random text, of which it saves about a quarter")
	fs.Var(&o.buffer, "buffer-bytes", "most bytes that wait for their acknowledgement")
}

// validateCommon checks what registerCommon registers.
func (o *benchOptions) validateCommon() (err error) {
	if o.protocol != protocolGRPC && o.protocol != protocolKafka {
		return usageErrorf("--protocol %q: use %s or %s", o.protocol, protocolGRPC, protocolKafka)
	}
	o.pids, err = parsePIDs(o.brokerPIDs)
	return err
}

func (o *benchOptions) validateLoad() error {
	if err := o.validateCommon(); err != nil {
		return err
	}
	switch {
	case o.records < 0:
		return usageErrorf("--records is %d: it must not be negative", o.records)
	case o.records == 0 && o.duration <= 0:
		return usageErrorf("--duration is %s: it must be more than 0", o.duration)
	case o.recordBytes < benchHeaderBytes:
		return usageErrorf("--record-bytes is %d: at least %d are needed", o.recordBytes, benchHeaderBytes)
	case o.rate < 0:
		return usageErrorf("--rate is %g: it must not be negative", o.rate)
	}
	return nil
}

func (o *benchOptions) producerOptions() ([]client.ProducerOption, error) {
	compression, err := record.ParseCompression(o.compression)
	if err != nil {
		return nil, usageErrorf("--compression: %w", err)
	}
	return []client.ProducerOption{
		client.WithCompression(compression), client.WithBatchBytes(int(o.batchBytes)), client.WithLinger(o.linger), client.WithBufferBytes(int64(o.buffer)),
	}, nil
}

// benchReport is what a benchmark found. Latencies are measured from the time that a record was meant to be sent.
type benchReport struct {
	Benchmark        string          `json:"benchmark"`
	Protocol         string          `json:"protocol"`
	Topic            string          `json:"topic"`
	Records          int64           `json:"records"`
	Bytes            int64           `json:"bytes"` // of keys and values
	Failed           int64           `json:"failed,omitempty"`
	Seconds          float64         `json:"seconds"`
	RecordsPerSecond float64         `json:"recordsPerSecond"`
	BytesPerSecond   float64         `json:"bytesPerSecond"`
	TargetRate       float64         `json:"targetRate,omitempty"` // records per second
	Ack              *latencySummary `json:"ackLatency,omitempty"`
	EndToEnd         *latencySummary `json:"endToEndLatency,omitempty"`
	Brokers          *brokerCost     `json:"brokers,omitempty"`
}

// brokerCost is what it cost the brokers, all together.
type brokerCost struct {
	PIDs              []int   `json:"pids"`
	WrittenBytes      int64   `json:"writtenBytes"`
	ReplicationFactor int32   `json:"replicationFactor"`
	WrittenPerByte    float64 `json:"writtenPerByte"`           // by all replicas
	WrittenPerReplica float64 `json:"writtenPerBytePerReplica"` // the same divided by the replication factor
	LogBytes          int64   `json:"logBytes"`                 // growth of one replica's segment files
	CPUSeconds        float64 `json:"cpuSeconds"`
	CPUSecondsPerGB   float64 `json:"cpuSecondsPerGB"`
	RSSBytes          int64   `json:"rssBytes"` // resident memory at the end
}

// measured runs f between two looks at the brokers, under the profiler if that was asked for.
func (a *app) measured(o *benchOptions, report *benchReport, f func() error) error {
	pids := o.pids
	stopProfile, err := startProfile(o.cpuProfile)
	if err != nil {
		return err
	}
	before, err := procUsage("/proc", pids)
	if err != nil {
		return errors.Join(err, stopProfile())
	}
	started := time.Now()
	err = f()
	elapsed := time.Since(started)
	if profileErr := stopProfile(); err == nil {
		err = profileErr
	}
	if err != nil {
		return err
	}
	report.Seconds = elapsed.Seconds()
	report.RecordsPerSecond = perSecond(float64(report.Records), elapsed)
	report.BytesPerSecond = perSecond(float64(report.Bytes), elapsed)
	if len(pids) == 0 {
		return nil
	}
	after, err := procUsage("/proc", pids)
	if err != nil {
		return err
	}
	used := after.minus(before)
	report.Brokers = &brokerCost{PIDs: pids, WrittenBytes: used.WriteBytes, CPUSeconds: used.CPUSeconds, RSSBytes: used.RSSBytes}
	return nil
}

// finishCost relates the brokers' cost to the bytes of the load.
func (r *benchReport) finishCost(replicationFactor int32, logBytes int64) {
	c := r.Brokers
	if c == nil || r.Bytes == 0 {
		return
	}
	c.ReplicationFactor, c.LogBytes = replicationFactor, logBytes
	c.WrittenPerByte = float64(c.WrittenBytes) / float64(r.Bytes)
	c.WrittenPerReplica = c.WrittenPerByte / float64(max(1, replicationFactor))
	c.CPUSecondsPerGB = c.CPUSeconds / (float64(r.Bytes) / 1e9)
}

func parsePIDs(list []string) ([]int, error) {
	if len(list) == 1 && list[0] == "auto" {
		pids, err := findBrokers("/proc")
		if err != nil {
			return nil, fmt.Errorf("--broker-pids auto needs Linux: %w", err)
		}
		if len(pids) == 0 {
			return nil, withCode(exitNotFound, errors.New("--broker-pids auto: no 'flotilla broker' or 'flotilla dev' runs on this machine"))
		}
		return pids, nil
	}
	var pids []int
	for _, s := range list {
		pid, err := strconv.Atoi(s)
		if err != nil || pid <= 0 {
			return nil, usageErrorf("--broker-pids: %q is no process ID; list numbers, or say auto", s)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// startProfile returns the function that ends the profile.
func startProfile(path string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// withBenchTopic runs f on a topic, which is created before and deleted afterwards if it does not exist.
func withBenchTopic(ctx context.Context, c *client.Client, topic string, o *benchOptions, f func() error) error {
	settings, err := parseSettings("--set", o.settings)
	if err != nil {
		return err
	}
	_, err = c.Admin().CreateTopic(ctx, client.TopicSpec{Name: topic, Partitions: o.partitions, ReplicationFactor: o.replication, Settings: settings})
	if errors.Is(err, client.CodeTopicAlreadyExists) {
		return f()
	}
	if err != nil {
		return err
	}
	err = f()
	if o.keep {
		return err
	}
	// The topic goes even if ctx has ended.
	return errors.Join(err, c.Admin().DeleteTopic(context.WithoutCancel(ctx), topic))
}

// logSize returns the topic's replication factor and the size of one replica of all its partitions.
func logSize(ctx context.Context, c *client.Client, topic string) (replicationFactor int32, bytes int64, err error) {
	t, err := c.Admin().DescribeTopic(ctx, topic)
	if err != nil {
		return 0, 0, err
	}
	for _, p := range t.Partitions {
		bytes += max(0, p.SizeBytes)
	}
	return t.ReplicationFactor, bytes, nil
}

func writeBenchReport(w io.Writer, r *benchReport) {
	fmt.Fprintf(w, "%s %s by %s: %s (%s) in %.1f s: %s records/s, %s/s\n", r.Benchmark, r.Topic, r.Protocol, count64(r.Records, "record"),
		humanize.Bytes(uint64(r.Bytes)), r.Seconds, humanize.Comma(int64(r.RecordsPerSecond)), humanize.Bytes(uint64(r.BytesPerSecond)))
	if r.TargetRate > 0 {
		fmt.Fprintf(w, "meant: %s records/s\n", humanize.Comma(int64(r.TargetRate)))
	}
	if r.Failed > 0 {
		fmt.Fprintf(w, "FAILED: %s\n", count64(r.Failed, "record"))
	}
	writeLatencies(w, r)
	if c := r.Brokers; c != nil {
		writeCost(w, c)
	}
}

func writeLatencies(w io.Writer, r *benchReport) {
	if r.Ack == nil && r.EndToEnd == nil {
		return
	}
	t := newTable("LATENCY (ms)", "p50", "p90", "p99", "p99.9", "max", "mean")
	for _, l := range []struct {
		name string
		s    *latencySummary
	}{{"acknowledged", r.Ack}, {"end to end", r.EndToEnd}} {
		if l.s != nil {
			t.row(l.name, ms(l.s.P50Ms), ms(l.s.P90Ms), ms(l.s.P99Ms), ms(l.s.P999Ms), ms(l.s.MaxMs), ms(l.s.MeanMs))
		}
	}
	t.write(w)
}

func ms(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }

func writeCost(w io.Writer, c *brokerCost) {
	var pids []string
	for _, pid := range c.PIDs {
		pids = append(pids, strconv.Itoa(pid))
	}
	fmt.Fprintf(w, "brokers (processes %s):\n", strings.Join(pids, ", "))
	if c.WrittenPerByte > 0 {
		fmt.Fprintf(w, "  written to disk: %s, %.2f bytes per byte, %.2f per replica\n", humanize.Bytes(uint64(c.WrittenBytes)), c.WrittenPerByte, c.WrittenPerReplica)
	} else {
		fmt.Fprintf(w, "  written to disk: %s\n", humanize.Bytes(uint64(max(0, c.WrittenBytes))))
	}
	if c.LogBytes > 0 {
		fmt.Fprintf(w, "  segment files grew by %s per replica\n", humanize.Bytes(uint64(c.LogBytes)))
	}
	fmt.Fprintf(w, "  CPU: %.2f s, %.2f s per GB\n", c.CPUSeconds, c.CPUSecondsPerGB)
	fmt.Fprintf(w, "  resident memory: %s\n", humanize.IBytes(uint64(c.RSSBytes)))
}
