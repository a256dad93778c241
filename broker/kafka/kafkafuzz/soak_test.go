package kafkafuzz_test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/broker/kafka/kafkafuzz"
	"github.com/flotilla-log/flotilla/broker/kafka/layout"
)

var (
	soakTime = flag.Duration("soak", 3*time.Second, "how long the broker is attacked")
	soakSeed = flag.Uint64("soak-seed", 0, "what the attack is made from; 0: chosen and printed")
)

const (
	attackers = 16
	// steadyTopic is used by nobody but the normal client.
	steadyTopic = "steady"
	// growth is what memory may differ by between the second and the last quarter of the time.
	growthBytes      = 32 << 20
	growthGoroutines = 200

	residentMemory = "resident bytes"
)

// TestSoak attacks a real broker over many connections for as long as -soak says, with valid requests of arbitrary contents, damaged ones and noise. A normal client
// must be served throughout, and the memory must not grow once it is warm.
func TestSoak(t *testing.T) {
	seed := *soakSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-soak=%s -soak-seed=%d", *soakTime, seed)
	c := brokertest.Start(t, brokertest.Options{Brokers: 1, Tune: func(cfg *broker.Config) {
		cfg.AutoCreateTopics = false
		cfg.Memory.TailCacheBytes = 8 << 20
	}})
	c.CreateTopic(kafkafuzz.Topic, 2, 1, "segment.bytes", "1048576", "retention.bytes", "4194304")
	c.CreateTopic(steadyTopic, 1, 1, "segment.bytes", "1048576", "retention.bytes", "4194304")
	addr := c.Broker(1).KafkaAddr()
	apis := servedAPIs(t, addr)

	ctx, cancel := context.WithTimeout(t.Context(), *soakTime)
	defer cancel()
	var tally tally
	var wg sync.WaitGroup
	for i := range attackers {
		wg.Go(func() {
			a := &attacker{addr: addr, apis: apis, r: rand.New(rand.NewPCG(seed, uint64(i))), tally: &tally}
			a.run(ctx)
		})
	}
	var normal normalClient
	wg.Go(func() { normal.run(ctx, t, addr) })
	samples := watchMemory(ctx)
	wg.Wait()
	report(t, &tally, &normal, samples)
	if normal.served == 0 {
		t.Error("the normal client was never served")
	}
	if tally.answered.Load() == 0 || tally.sent.Load() < 10 {
		t.Errorf("%d requests were sent, %d answered: that is no attack", tally.sent.Load(), tally.answered.Load())
	}
}

// api is what the broker says it serves.
type api struct{ key, min, max int16 }

func servedAPIs(t *testing.T, addr string) []api {
	t.Helper()
	resp, err := brokertest.TryKafkaAt(addr, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		t.Fatal(err)
	}
	var out []api
	for _, k := range resp.(*kmsg.ApiVersionsResponse).ApiKeys {
		out = append(out, api{k.ApiKey, k.MinVersion, k.MaxVersion})
	}
	return out
}

type tally struct{ sent, answered, closed, connections atomic.Int64 }

// attacker sends requests over one connection after another.
type attacker struct {
	addr  string
	apis  []api
	r     *rand.Rand
	tally *tally
}

func (a *attacker) run(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", a.addr)
		if err != nil {
			continue
		}
		a.tally.connections.Add(1)
		a.attack(ctx, conn)
		_ = conn.Close()
	}
}

// attack uses a connection until the broker closes it, or it has no answer, or there was enough.
func (a *attacker) attack(ctx context.Context, conn net.Conn) {
	for range 1 + a.r.IntN(200) {
		if ctx.Err() != nil {
			return
		}
		pipelined := 1
		if a.r.IntN(8) == 0 {
			pipelined += a.r.IntN(8)
		}
		for range pipelined {
			frame := a.frame()
			if a.r.IntN(60) == 0 {
				frame = frame[:a.r.IntN(len(frame))] // the rest never comes
			}
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := conn.Write(frame); err != nil {
				a.tally.closed.Add(1)
				return
			}
			a.tally.sent.Add(1)
		}
		if a.r.IntN(40) == 0 {
			return // without taking the answers
		}
		for range pipelined {
			if !a.answer(conn) {
				return
			}
		}
	}
}

func (a *attacker) answer(conn net.Conn) bool {
	_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			a.tally.closed.Add(1)
		}
		return false
	}
	if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(size[:]))); err != nil {
		return false
	}
	a.tally.answered.Add(1)
	return true
}

func (a *attacker) frame() []byte {
	k := a.apis[a.r.IntN(len(a.apis))]
	version := k.min + int16(a.r.IntN(int(k.max-k.min)+1))
	if a.r.IntN(6) == 0 {
		return a.harmless(kafkafuzz.Noise(a.r, k.key, version))
	}
	req := kmsg.RequestForKey(k.key)
	req.SetVersion(version)
	kafkafuzz.Fill(req, a.r)
	restrain(req)
	frame := kafkafuzz.Frame(req, int32(a.r.Uint32()))
	if a.r.IntN(2) == 0 {
		return frame
	}
	return a.harmless(kafkafuzz.Damage(frame, a.r))
}

// harmless makes sure that a damaged request which is valid by chance does only what valid ones may do here.
func (a *attacker) harmless(frame []byte) []byte {
	req, ok := parse(frame)
	if !ok {
		return frame
	}
	restrain(req)
	return kafkafuzz.Frame(req, 1)
}

// parse reads a frame as the broker does.
func parse(frame []byte) (kmsg.Request, bool) {
	if len(frame) < 14 {
		return nil, false
	}
	req := kmsg.RequestForKey(int16(binary.BigEndian.Uint16(frame[4:])))
	version := int16(binary.BigEndian.Uint16(frame[6:]))
	if req == nil || version < 0 || version > req.MaxVersion() {
		return nil, false
	}
	req.SetVersion(version)
	rest := frame[14:]
	if n := int(int16(binary.BigEndian.Uint16(frame[12:]))); n > len(rest) {
		return nil, false
	} else if n > 0 {
		rest = rest[n:]
	}
	if req.IsFlexible() && len(rest) > 0 {
		rest = rest[1:]
	}
	return req, layout.Check(req.Key(), version, rest) == nil && req.ReadFrom(rest) == nil
}

// restrain keeps valid requests from doing lasting things without bound, which a broker must do if it is asked to: making topics, groups and offsets, changing
// settings, waiting for minutes.
func restrain(req kmsg.Request) {
	switch r := req.(type) {
	case *kmsg.CreateTopicsRequest:
		r.ValidateOnly = true
		if r.Version == 0 { // it cannot say so
			r.Topics = nil
		}
	case *kmsg.CreatePartitionsRequest:
		r.ValidateOnly = true
	case *kmsg.DeleteTopicsRequest:
		r.TopicNames, r.Topics = []string{"fuzz-none"}, nil
	case *kmsg.AlterConfigsRequest:
		r.ValidateOnly = true
	case *kmsg.IncrementalAlterConfigsRequest:
		r.ValidateOnly = true
	case *kmsg.AlterPartitionAssignmentsRequest:
		r.Topics = nil
	case *kmsg.DeleteRecordsRequest:
		r.Topics = slices.DeleteFunc(r.Topics, func(t kmsg.DeleteRecordsRequestTopic) bool { return t.Topic != kafkafuzz.Topic })
	case *kmsg.JoinGroupRequest:
		r.Group, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = oneOf(r.Group), 6000, 6000
		r.InstanceID = nil
	case *kmsg.OffsetCommitRequest:
		r.Group = oneOf(r.Group)
		for i := range r.Topics {
			r.Topics[i].Topic = kafkafuzz.Topic
		}
	case *kmsg.FetchRequest:
		r.MaxWaitMillis = min(r.MaxWaitMillis, 200)
	}
}

// oneOf maps any name to one of a few.
func oneOf(name string) string {
	sum := 0
	for _, b := range []byte(name) {
		sum += int(b)
	}
	return fmt.Sprintf("fuzz-group-%d", sum%8)
}

// normalClient produces and fetches, and wants to be served.
type normalClient struct {
	served  int
	slowest time.Duration
}

func (n *normalClient) run(ctx context.Context, t *testing.T, addr string) {
	r := rand.New(rand.NewPCG(1, 1))
	for ctx.Err() == nil {
		begin := time.Now()
		if err := roundTrip(addr, kafkafuzz.Batch(r)); err != nil {
			t.Errorf("the normal client was not served after %d times: %v", n.served, err)
			return
		}
		n.served++
		n.slowest = max(n.slowest, time.Since(begin))
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// roundTrip produces a batch and fetches it.
func roundTrip(addr string, batch []byte) error {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = batch
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = steadyTopic, append(topic.Partitions, p)
	produce := kmsg.NewPtrProduceRequest()
	produce.Version, produce.Acks, produce.TimeoutMillis, produce.Topics = 9, -1, 30_000, append(produce.Topics, topic)
	resp, err := brokertest.TryKafkaAt(addr, produce)
	if err != nil {
		return fmt.Errorf("produce: %w", err)
	}
	stored := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if stored.ErrorCode != 0 {
		return fmt.Errorf("produce: error %d: %v", stored.ErrorCode, stored.ErrorMessage)
	}
	f := kmsg.NewFetchRequestTopicPartition()
	f.FetchOffset, f.PartitionMaxBytes, f.CurrentLeaderEpoch = stored.BaseOffset, 1<<20, -1
	from := kmsg.NewFetchRequestTopic()
	from.Topic, from.Partitions = steadyTopic, append(from.Partitions, f)
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version, fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes, fetch.SessionEpoch, fetch.Topics = 12, 30_000, 1, 1<<20, -1, append(fetch.Topics, from)
	if resp, err = brokertest.TryKafkaAt(addr, fetch); err != nil {
		return fmt.Errorf("fetch: %w", err)
	}
	if got := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]; got.ErrorCode != 0 || len(got.RecordBatches) < len(batch) {
		return fmt.Errorf("fetch at %d: error %d, %d bytes of a batch of %d; the log is from %d to %d",
			stored.BaseOffset, got.ErrorCode, len(got.RecordBatches), len(batch), got.LogStartOffset, got.HighWatermark)
	}
	return nil
}

// sample is what the process takes. It is broker, attackers and the normal client together.
type sample struct {
	heap, rss  int64
	goroutines int
}

// watchMemory takes 40 samples until ctx ends.
func watchMemory(ctx context.Context) []sample {
	tick := time.NewTicker(max(*soakTime/40, 10*time.Millisecond))
	defer tick.Stop()
	var out []sample
	for {
		select {
		case <-tick.C:
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			out = append(out, sample{int64(m.HeapAlloc), residentBytes(), runtime.NumGoroutine()})
		case <-ctx.Done():
			return out
		}
	}
}

// residentBytes is 0 where there is no /proc.
func residentBytes() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// report judges whether the memory is flat: the medians of the second and of the last quarter of the time may differ by little.
func report(t *testing.T, tally *tally, normal *normalClient, samples []sample) {
	t.Helper()
	t.Logf("%d connections, %d requests sent, %d answered, %d connections closed by the broker; the normal client was served %d times, in %s at most",
		tally.connections.Load(), tally.sent.Load(), tally.answered.Load(), tally.closed.Load(), normal.served, normal.slowest.Round(time.Millisecond))
	if len(samples) < 8 {
		t.Errorf("%d samples of the memory: the time is too short", len(samples))
		return
	}
	early, late := samples[len(samples)/4:len(samples)/2], samples[3*len(samples)/4:]
	for _, m := range []struct {
		what  string
		of    func(sample) int64
		limit int64
	}{
		{"heap bytes", func(s sample) int64 { return s.heap }, growthBytes},
		{residentMemory, func(s sample) int64 { return s.rss }, 4 * growthBytes},
		{"goroutines", func(s sample) int64 { return int64(s.goroutines) }, growthGoroutines},
	} {
		first, last := median(early, m.of), median(late, m.of)
		t.Logf("%s: %d in the second quarter, %d in the last", m.what, first, last)
		if m.what == residentMemory && raceDetector {
			continue // the race detector remembers addresses and goroutines that are no more
		}
		if last-first > m.limit {
			t.Errorf("%s grew from %d to %d; at most %d more are taken for flat", m.what, first, last, m.limit)
		}
	}
}

func median(samples []sample, of func(sample) int64) int64 {
	values := make([]int64, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
