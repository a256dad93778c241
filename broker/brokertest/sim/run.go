package sim

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/scripts/chaos/checker"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// How long things may take, in virtual time.
const (
	readyWithin   = time.Minute
	servedWithin  = time.Minute
	healthyWithin = 3 * time.Minute
	groupWithin   = 2 * time.Minute
	readWithin    = time.Minute
	stopWithin    = 30 * time.Second
	warmUp        = 500 * time.Millisecond
	scrubEvery    = 2 * time.Second
	endWithin     = 20 * time.Second // a broker that was killed, and one that is stopped beyond the time that it was given: the longest stalls of disks, and more
	neverWithin   = 10 * time.Minute
	startWithin   = 5 * time.Second // with peers that have no power, and what disks take on top
	decodeLimit   = 16 << 20
	// What makes a run count.
	minAcks, minDuring = 200, 20
)

// Result is what came of a run.
type Result struct {
	Name      string
	Seed      uint64
	Verdict   string // ok, FAIL or INVALID
	Problems  []string
	Counts    checker.Counts
	Faults    int
	Trouble   map[string]int // what clients were told, by who and code
	Timeline  []string
	VirtualMs int64 // how long it took by the virtual clock
	Echoes    int   // connections that came twice
}

// run is one run of a plan.
type run struct {
	plan Plan
	c    *Cluster
	rec  *history.Recorder
	work *workload

	faulting context.Context // ends when the healing begins
	heal     context.CancelFunc

	mu       sync.Mutex
	timeline []string
	problems []string
}

// Run carries out a plan. It must be called in a bubble of synctest, whose goroutines have all ended when it returns, but for those that wait for an answer
// that hashicorp/raft never gives (partition's README says which).
func Run(p Plan, log hclog.Logger) Result {
	rng := rand.New(rand.NewPCG(p.Seed, 1))
	r := &run{plan: p, c: NewCluster(fork(rng), p.Founders, p.Founders+1, log), rec: history.NewRecorder()}
	r.c.Late, r.c.StartWithin = r.problem, p.startWithin()
	r.faulting, r.heal = context.WithCancel(context.Background())
	defer r.heal()
	r.work = newWorkload(r.c, r.rec, p.Pace)
	r.work.flush, r.work.absent = p.Flush, p.Absent
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"starting", func() error { return r.boot(fork(rng)) }},
		{"workload", func() error { return r.work.start(fork(rng)) }},
		{"faults", func() error { return r.strike(fork(rng)) }},
		{"healing", r.healAll},
		{"serving", r.served},
		{"health", r.healthy},
		{"scrub", r.scrubbed},
		{"group", r.caughtUp},
		{"replicas", r.same},
	} {
		r.logf("-- %s", step.name)
		if err := step.do(); err != nil {
			r.problem("%s: %v", step.name, err)
			break
		}
	}
	r.finish()
	return r.result()
}

func (r *run) logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timeline = append(r.timeline, fmt.Sprintf("%8.3f ", r.rec.Now().Seconds())+fmt.Sprintf(format, args...))
}

func (r *run) problem(format string, args ...any) {
	r.logf("PROBLEM "+format, args...)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.problems) == 0 { // who waits for whom, for the file that the failure leaves
		buf := make([]byte, 16<<20)
		fmt.Fprintf(os.Stderr, "\nSTACKS\n%s\n", buf[:runtime.Stack(buf, true)])
	}
	r.problems = append(r.problems, fmt.Sprintf(format, args...))
}

func (r *run) boot(rng *rand.Rand) error {
	nodes := r.c.Nodes[:r.plan.Founders]
	for _, n := range nodes {
		r.slow(n, 0)
	}
	if r.plan.RoughStart {
		var wg sync.WaitGroup
		for _, n := range nodes {
			rng := fork(rng)
			wg.Go(func() { r.startAndKill(n, rng.IntN(3), 150*time.Millisecond, rng) })
		}
		wg.Wait()
	}
	r.startAll(nodes...)
	for _, n := range nodes {
		if err := n.Await(readyWithin); err != nil {
			return err
		}
	}
	return nil
}

// startAll starts brokers at the same time, as far as they are down.
func (r *run) startAll(nodes ...*Node) {
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			err := n.Start()
			if err != nil {
				r.logf("broker %d did not start: %v", n.ID, err)
			}
			if refused(err) {
				r.replaceDisk(n)
			}
		})
	}
	wg.Wait()
}

// replaceDisk is what an operator does whose broker refuses to start with what is on its disk.
func (r *run) replaceDisk(n *Node) {
	if !n.Disk().isRotten() {
		r.problem("broker %d refuses to start, and nothing has damaged its votes and metadata", n.ID)
		return
	}
	if !n.Wipe(rand.New(rand.NewPCG(r.plan.Seed, uint64(n.ID)))) {
		return // somebody else did
	}
	r.slow(n, 0)
	r.logf("broker %d gets an empty disk", n.ID)
	if err := n.Start(); err != nil {
		r.logf("broker %d did not start: %v", n.ID, err)
	}
}

// join starts the machine that is not yet part of the cluster; nil if it is.
func (r *run) join() *Node {
	n := r.c.Nodes[len(r.c.Nodes)-1]
	if n.used.Load() {
		return nil
	}
	r.startAll(n)
	return n
}

// strike brings the plan's steps about, each at its time. Those that overlap go on at the same time.
func (r *run) strike(rng *rand.Rand) error {
	if err := sleep(context.Background(), warmUp); err != nil {
		return err
	}
	began := time.Now()
	var wg sync.WaitGroup
	for _, s := range r.plan.Steps {
		mine := fork(rng)
		r.pause(time.Until(began.Add(s.At)))
		r.reap()
		f := faults[s.Fault]
		if f == nil {
			return fmt.Errorf("there is no fault %q", s.Fault)
		}
		n := r.victim(s)
		if n == nil && s.Victim != "" {
			r.logf("nobody to strike: %s", s)
			continue
		}
		wg.Go(func() { r.record(s, n, func() { f(r, s, n, mine) }) })
	}
	r.pause(time.Until(began.Add(r.plan.Window)))
	r.pause(200 * time.Millisecond)
	r.heal()
	wg.Wait()
	return nil
}

// reap ends brokers that say that they cannot go on, as their supervisor would.
func (r *run) reap() {
	for _, n := range r.c.Members() {
		b := n.Broker()
		if b == nil {
			continue
		}
		select {
		case err := <-b.Failed():
			r.logf("broker %d ends itself: %v", n.ID, err)
			n.Kill(false)
		default:
		}
	}
}

func (r *run) healAll() error {
	r.work.calm.Store(true)
	r.c.Net.Heal()
	for _, n := range r.c.Members() {
		n.Disk().Heal()
	}
	for end := time.Now().Add(readyWithin); ; {
		r.reap()
		r.startAll(r.c.Members()...)
		err := r.ready()
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

func (r *run) ready() error {
	for _, n := range r.c.Members() {
		if err := n.Await(10 * time.Second); err != nil {
			return err
		}
	}
	return nil
}

// eventually asks again and again until f has no error.
func (r *run) eventually(within time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		r.reap()
		r.startAll(r.c.Members()...)
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("not within %s: %w", within, err)
		}
	}
}

// served waits until every partition has acknowledged something.
func (r *run) served() error {
	since := r.rec.Now()
	return r.eventually(servedWithin, func(context.Context) error {
		r.work.mu.Lock()
		defer r.work.mu.Unlock()
		for _, tp := range partitions() {
			if p := partitionOf(tp); r.work.acked[p] <= since && (tp.Topic != condTopic || r.plan.Absent&appendWork == 0) {
				return fmt.Errorf("%s was not written to since %s", p, r.work.acked[p])
			}
		}
		return nil
	})
}

// healthy waits until the cluster says that it is.
func (r *run) healthy() error {
	return r.eventually(healthyWithin, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		s, err := r.work.client.Admin().Status(ctx)
		if err != nil {
			return err
		}
		for _, p := range s.Problems {
			return fmt.Errorf("%s: %s", p.TopicPartition, p.Problem)
		}
		for _, b := range s.Brokers {
			if b.State == client.BrokerDraining || b.State == client.BrokerDrained {
				_ = r.work.client.Admin().Recommission(ctx, b.ID)
			}
			if b.State != client.BrokerAlive {
				return fmt.Errorf("broker %d is %s", b.ID, b.State)
			}
		}
		return nil
	})
}

// scrubbed gives background scrubs the time to find what was damaged while nobody read it.
func (r *run) scrubbed() error {
	if !slices.ContainsFunc(r.plan.Steps, func(s Step) bool { return s.Victim != "" && damages[s.Fault] }) {
		return nil
	}
	_ = sleep(context.Background(), 3*scrubEvery)
	return r.healthy()
}

func (r *run) ends(ctx context.Context) (map[client.TopicPartition]int64, error) {
	positions := map[client.TopicPartition]client.Position{}
	for _, tp := range partitions() {
		positions[tp] = client.Latest()
	}
	ends := map[client.TopicPartition]int64{}
	for tp, at := range r.work.client.Admin().ListOffsets(ctx, positions) {
		if at.Err != nil {
			return nil, fmt.Errorf("end of %s: %w", tp, at.Err)
		}
		ends[tp] = at.Offset
	}
	return ends, nil
}

// caughtUp waits until the group has committed what is there now, then ends the workload.
func (r *run) caughtUp() error {
	var ends map[client.TopicPartition]int64
	err := r.eventually(servedWithin, func(ctx context.Context) (err error) { ends, err = r.ends(ctx); return err })
	if err != nil || r.plan.Absent&groupWork != 0 {
		return err
	}
	return r.eventually(groupWithin, func(ctx context.Context) error { return r.work.behind(ctx, ends) })
}

// same ends the workload, and waits until all replicas of each partition have the same records.
func (r *run) same() error {
	if err := r.work.stop(); err != nil {
		return err
	}
	return r.eventually(healthyWithin, func(context.Context) error {
		for _, tp := range partitions() {
			if err := r.sameReplicas(api.TopicPartition{Topic: tp.Topic, Partition: tp.Partition}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *run) sameReplicas(tp api.TopicPartition) error {
	leader := r.node(r.leader(tp.Topic, tp.Partition))
	if leader == nil || leader.Up() == nil {
		return fmt.Errorf("%v has no leader", tp)
	}
	want, ok := leader.Up().LocalReplica(tp)
	if !ok || !want.Ready {
		return fmt.Errorf("%v: broker %d does not lead it yet", tp, leader.ID)
	}
	replicas := leader.Up().Metadata([]string{tp.Topic}).Topics[0].Partitions[tp.Partition].Replicas
	for _, id := range replicas {
		b := r.node(id).Up()
		if b == nil {
			return fmt.Errorf("broker %d is down", id)
		}
		got, ok := b.LocalReplica(tp)
		if !ok || got.HighWatermark != want.HighWatermark || got.LogStart != want.LogStart {
			return fmt.Errorf("%v on broker %d: %d to %d, where the leader has %d to %d", tp, id, got.LogStart, got.HighWatermark, want.LogStart, want.HighWatermark)
		}
		if got.Digest != want.Digest {
			return fmt.Errorf("%v on broker %d: it has digest %x at %d, and the leader %x", tp, id, got.Digest, got.HighWatermark, want.Digest)
		}
	}
	return nil
}

// finish reads everything back, stops all brokers and reads their files.
func (r *run) finish() {
	r.logf("-- reading back")
	_ = r.work.stop()
	if len(r.problems) == 0 {
		if err := r.readBack(); err != nil {
			r.problem("reading back: %v", err)
		}
	}
	r.work.close()
	var wg sync.WaitGroup
	for _, n := range r.c.Members() {
		wg.Go(func() {
			if err := n.Stop(stopWithin); err != nil {
				r.problem("stopping broker %d: %v", n.ID, err)
			}
		})
	}
	wg.Wait()
	r.awaitEndings()
	if len(r.problems) > 0 {
		return
	}
	for _, n := range r.c.Members() {
		if err := r.files(n); err != nil {
			r.problem("files of broker %d: %v", n.ID, err)
		}
	}
}

// awaitEndings waits until the brokers that were killed have ended, too.
func (r *run) awaitEndings() {
	done := make(chan struct{})
	go func() {
		r.c.endings.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(neverWithin):
		r.problem("a broker that was killed has not ended in %s", neverWithin)
	}
}

func (r *run) readBack() error {
	ctx, cancel := context.WithTimeout(context.Background(), readWithin)
	defer cancel()
	c, err := r.work.newClient()
	if err != nil {
		return err
	}
	ends, err := r.ends(ctx)
	if err != nil {
		return err
	}
	for _, tp := range partitions() {
		if err := r.readPartition(ctx, c, tp, ends[tp]); err != nil {
			return fmt.Errorf("%s: %w", tp, err)
		}
	}
	return nil
}

func (r *run) readPartition(ctx context.Context, c *client.Client, tp client.TopicPartition, end int64) error {
	k, err := c.NewConsumer()
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }()
	at := c.Admin().ListOffsets(ctx, map[client.TopicPartition]client.Position{tp: client.Earliest()})[tp]
	if at.Err != nil {
		return at.Err
	}
	if err := k.Assign(client.Assignment{Topic: tp.Topic, Partition: tp.Partition, Start: client.AtOffset(at.Offset)}); err != nil {
		return err
	}
	final := history.Final{Partition: partitionOf(tp), LogStart: at.Offset}
	for next := at.Offset; next < end; {
		records, err := k.Poll(ctx)
		if err != nil {
			return err
		}
		for _, rec := range records {
			final.Records = append(final.Records, history.Read{Offset: rec.Offset, Value: string(rec.Value)})
			next = rec.Offset + 1
		}
	}
	r.rec.Final(final)
	return nil
}

// files reads the files of all replicas of a broker.
func (r *run) files(n *Node) error {
	root := filepath.Join(dataDir, "partitions")
	dirs, err := n.disk.mem.ReadDir(root)
	if err != nil {
		return err
	}
	finals := map[history.Partition]history.Final{}
	for _, f := range r.rec.History().Finals {
		finals[f.Partition] = f
	}
	var errs []error
	for _, d := range dirs {
		p, ok := partitionOfDir(d.Name)
		final, known := finals[p]
		if is, err := raftlog.IsLogDir(n.disk.mem, filepath.Join(root, d.Name)); !ok || !known || err != nil || !is {
			continue
		}
		if err := r.replica(n, filepath.Join(root, d.Name), final); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// partitionOfDir reads "<topic>-<partition>.<group>-<generation>".
func partitionOfDir(name string) (history.Partition, bool) {
	if strings.Contains(name, ".damaged-") {
		return history.Partition{}, false
	}
	name, _, _ = strings.Cut(name, ".")
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return history.Partition{}, false
	}
	id, err := strconv.ParseInt(name[at+1:], 10, 32)
	return history.Partition{Topic: name[:at], ID: int32(id)}, err == nil
}

// replica adds what the files hold of the records that were read back; what lies behind was never committed and may differ.
func (r *run) replica(n *Node, dir string, final history.Final) error {
	rep := history.Replica{Broker: int(n.ID), Partition: final.Partition}
	end := final.LogStart + int64(len(final.Records))
	report, err := raftlog.Inspect(n.disk.mem, dir, raftlog.InspectOptions{Verify: true}, func(e raftlog.EntryInfo) error {
		if e.Batch == nil || !e.Batch.Accepted {
			return nil
		}
		records, err := record.Decode(e.Data, decodeLimit)
		for _, x := range records {
			if at := int64(x.Offset); at >= final.LogStart && at < end {
				rep.Records = append(rep.Records, history.Read{Offset: at, Value: string(x.Value)})
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	if !report.Healthy() {
		return fmt.Errorf("damage: %v", report.Damage)
	}
	r.rec.Replica(rep)
	return nil
}

func (r *run) result() Result {
	h := r.rec.History()
	out := Result{
		Name: r.plan.Name, Seed: r.plan.Seed, Faults: len(h.Faults), Trouble: maps.Clone(r.work.trouble), Timeline: slices.Clone(r.timeline),
		VirtualMs: r.rec.Now().Milliseconds(), Problems: slices.Clone(r.problems), Echoes: r.c.Net.echoes,
	}
	if len(out.Problems) > 0 {
		// Without a final reading only some of the checks make sense; that it was not possible is bad enough.
		out.Verdict = "FAIL"
		return out
	}
	judged := checker.Check(h, checker.Options{MinAcks: minAcks, MinDuring: minDuring})
	out.Counts, out.Verdict = judged.Counts, judged.Verdict()
	for _, a := range judged.Anomalies {
		out.Problems = append(out.Problems, a.String())
	}
	if judged.Invalid != "" {
		out.Problems = append(out.Problems, judged.Invalid)
	}
	return out
}
