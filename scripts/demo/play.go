package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/procs"
)

const (
	topic             = "flights"
	partitionCount    = 12
	replicationFactor = 3
	group             = "arrivals-board"
	memberCount       = 3

	// produceRate keeps production under way for about ten seconds, so that the failure happens in the middle of it.
	produceRate = 2000
	// killAt and restartAt are shares of the events that the group has been given when the leader is killed, and started again.
	killAt    = 0.25
	restartAt = 0.60
)

// stage is what the parts of the play share.
type stage struct {
	*story
	cluster *procs.Cluster
	client  *client.Client
	events  []event

	acknowledged atomic.Int64
	consumed     atomic.Int64 // deliveries to the group, in all
}

// play is the demo from the first broker to the verdict.
func play(ctx context.Context, cluster *procs.Cluster, events []event, s *story) error {
	if err := startAll(ctx, cluster, s); err != nil {
		return err
	}
	c, err := client.New(cluster.Addrs(), client.WithClientID("demo"))
	if err != nil {
		return err
	}
	st := &stage{story: s, cluster: cluster, client: c, events: events}
	err = st.acts(ctx)
	if closeErr := c.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := cluster.StopAll(15 * time.Second); err != nil {
		return err
	}
	s.tell("All brokers stopped in order.")
	s.tell("PASSED: every event is in the log exactly once and in order per key, and the group saw every one of them.")
	return nil
}

func startAll(ctx context.Context, cluster *procs.Cluster, s *story) error {
	s.tell("Starting three brokers, each a process with an empty directory: %s", strings.Join(cluster.Addrs(), ", "))
	if err := cluster.StartAll(ctx); err != nil {
		return err
	}
	s.tell("They have met, made a cluster, and serve.")
	return nil
}

func (st *stage) acts(ctx context.Context) error {
	if err := st.createTopic(ctx); err != nil {
		return err
	}
	delivered, err := st.produceAndConsume(ctx)
	if err != nil {
		return err
	}
	log, err := st.readAll(ctx)
	if err != nil {
		return err
	}
	if err := st.judge(log, delivered); err != nil {
		return err
	}
	return st.replays(ctx, log)
}

func (st *stage) createTopic(ctx context.Context) error {
	_, err := st.client.Admin().CreateTopic(ctx, client.TopicSpec{
		Name: topic, Partitions: partitionCount, ReplicationFactor: replicationFactor,
		// The events carry their own time, which is long past; by default they would be too old to be kept.
		Settings: map[string]string{"retention.ms": "-1"},
	})
	if err != nil {
		return err
	}
	st.tell("Created topic %q: %d partitions, replication factor %d.", topic, partitionCount, replicationFactor)
	return nil
}

// produceAndConsume lets production, the group, and the failure of a broker overlap. It returns all that the group was given.
func (st *stage) produceAndConsume(ctx context.Context) ([]stored, error) {
	st.tell("Producing %d flights keyed by airport of origin, %d a second, while group %q with %d members consumes them.",
		len(st.events), produceRate, group, memberCount)
	acts, ctx := errgroup.WithContext(ctx)
	members := make([][]stored, memberCount)
	// The members read until they are told that the group has committed everything.
	consuming, stopConsuming := context.WithCancel(ctx)
	defer stopConsuming()
	for m := range memberCount {
		acts.Go(func() (err error) {
			members[m], err = st.consume(consuming, m)
			return err
		})
	}
	acts.Go(func() error {
		if err := st.produce(ctx); err != nil {
			return err
		}
		if err := st.waitGroupDone(ctx); err != nil {
			return err
		}
		stopConsuming()
		return nil
	})
	acts.Go(func() error { return st.failLeader(ctx) })
	if err := acts.Wait(); err != nil {
		return nil, errors.Join(err, context.Cause(ctx))
	}
	var all []stored
	for m, got := range members {
		st.detail("member %d was given %d records", m+1, len(got))
		all = append(all, got...)
	}
	return all, nil
}

// produce sends the events in their order at a steady rate, and waits until all are acknowledged.
func (st *stage) produce(ctx context.Context) error {
	p, err := st.client.NewProducer()
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	note := func(_ *client.Record, err error) {
		if err == nil {
			st.acknowledged.Add(1)
			return
		}
		select {
		case failed <- err:
		default:
		}
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	started, next := time.Now(), 0
	for next < len(st.events) {
		select {
		case <-tick.C:
		case err := <-failed:
			return errors.Join(err, p.Close(ctx))
		case <-ctx.Done():
			return errors.Join(ctx.Err(), p.Close(ctx))
		}
		for due := int(time.Since(started).Seconds() * produceRate); next < len(st.events) && next < due; next++ {
			e := st.events[next]
			p.ProduceAsync(ctx, &client.Record{Topic: topic, Key: []byte(e.key), Value: []byte(e.line), Timestamp: time.UnixMilli(e.timeMs)}, note)
		}
	}
	if err := p.Close(ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return err
	default:
	}
	st.tell("All %d events are acknowledged: each is on the disks of at least two brokers.", st.acknowledged.Load())
	return nil
}

// consume is one member of the group. It returns what it was given when ctx ends.
func (st *stage) consume(ctx context.Context, m int) (got []stored, err error) {
	member, err := st.client.NewGroupConsumer(group, []string{topic}, client.WithAutoCommit(500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		err = errors.Join(err, member.Close(closing))
	}()
	for {
		records, err := member.Poll(ctx)
		if ctx.Err() != nil {
			return got, nil
		}
		if err != nil {
			return got, fmt.Errorf("member %d: %w", m+1, err)
		}
		for _, r := range records {
			got = append(got, fromRecord(r))
		}
		st.consumed.Add(int64(len(records)))
	}
}

func fromRecord(r *client.Record) stored {
	return stored{partition: r.Partition, offset: r.Offset, timeMs: r.Timestamp.UnixMilli(), key: string(r.Key), line: string(r.Value)}
}

// waitGroupDone waits until the group's committed offsets are at the end of every partition.
func (st *stage) waitGroupDone(ctx context.Context) error {
	return poll(ctx, 200*time.Millisecond, "the group has consumed everything", func() (bool, error) {
		g, err := st.client.Admin().DescribeGroup(ctx, group)
		if err != nil {
			return false, ignoreRetriable(err)
		}
		var committed int64
		for _, o := range g.Offsets {
			committed += max(0, o.CommittedOffset)
		}
		return committed == int64(len(st.events)), nil
	})
}

func ignoreRetriable(err error) error {
	if client.IsRetriable(err) {
		return nil
	}
	return err
}

// poll calls f until it says true. what is what is waited for.
func poll(ctx context.Context, every time.Duration, what string, f func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		done, err := f()
		if err != nil || done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting until %s: %w", what, context.Cause(ctx))
		}
	}
}

// share waits until the group has been given this share of the events.
func (st *stage) share(ctx context.Context, share float64) error {
	want := int64(share * float64(len(st.events)))
	return poll(ctx, 10*time.Millisecond, fmt.Sprintf("the group was given %d events", want), func() (bool, error) {
		return st.consumed.Load() >= want, nil
	})
}

// failLeader kills the broker that leads the partition of the busiest airport in the middle, and starts it again later.
func (st *stage) failLeader(ctx context.Context) error {
	if err := st.share(ctx, killAt); err != nil {
		return err
	}
	partition, leader, err := st.leaderOf(ctx, busiest(st.events))
	if err != nil {
		return err
	}
	if acked := st.acknowledged.Load(); acked >= int64(len(st.events)) {
		return errors.New("production was over before the leader could be killed")
	}
	st.tell("Killing broker %d with SIGKILL: it leads partition %d, that of %s. So far %d are acknowledged and %d consumed.",
		leader, partition, busiest(st.events), st.acknowledged.Load(), st.consumed.Load())
	st.cluster.Kill(int(leader) - 1)
	killed := time.Now()
	if err := st.waitNewLeader(ctx, partition, leader); err != nil {
		return err
	}
	st.detail("partition %d has a new leader after %.1f s", partition, time.Since(killed).Seconds())
	return st.comeBack(ctx, leader)
}

func (st *stage) comeBack(ctx context.Context, broker int32) error {
	if err := st.share(ctx, restartAt); err != nil {
		return err
	}
	acked, consumed := st.acknowledged.Load(), st.consumed.Load()
	if acked >= int64(len(st.events)) {
		return errors.New("production was over before the broker was started again")
	}
	st.tell("Starting broker %d again. %d acknowledged and %d consumed without it.", broker, acked, consumed)
	started := time.Now()
	if err := st.cluster.Start(ctx, int(broker)-1); err != nil {
		return err
	}
	st.tell("Broker %d is back after %.1f s, while production and consumption went on (%d and %d).",
		broker, time.Since(started).Seconds(), st.acknowledged.Load(), st.consumed.Load())
	return nil
}

func busiest(events []event) string {
	counts := map[string]int{}
	best := ""
	for _, e := range events {
		counts[e.key]++
		if counts[e.key] > counts[best] {
			best = e.key
		}
	}
	return best
}

// leaderOf finds the partition of a key, and the broker that leads it.
func (st *stage) leaderOf(ctx context.Context, key string) (partition, leader int32, err error) {
	partition = client.ByKey().Partition(&client.Record{Topic: topic, Key: []byte(key)}, partitionCount)
	err = poll(ctx, 50*time.Millisecond, "the partition has a leader", func() (bool, error) {
		leader, err = st.leader(ctx, partition)
		return leader > 0, err
	})
	return partition, leader, err
}

// leader returns -1 if there is none at the moment.
func (st *stage) leader(ctx context.Context, partition int32) (int32, error) {
	m, err := st.client.Metadata(ctx, topic)
	if err != nil {
		return -1, ignoreRetriable(err)
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if t.Topic == topic && p.Partition == partition {
				return p.Leader, nil
			}
		}
	}
	return -1, nil
}

func (st *stage) waitNewLeader(ctx context.Context, partition, old int32) error {
	return poll(ctx, 50*time.Millisecond, "another broker leads the partition", func() (bool, error) {
		leader, err := st.leader(ctx, partition)
		return leader > 0 && leader != old, err
	})
}

// judge compares the log with the source file, and the group's deliveries with the log.
func (st *stage) judge(log [][]stored, delivered []stored) error {
	total := 0
	for _, records := range log {
		total += len(records)
	}
	if v := verifyLog(st.events, log); v.count > 0 {
		return fmt.Errorf("the log is not what was produced, %d violations:\n  %s", v.count, strings.Join(v.first, "\n  "))
	}
	st.tell("The log holds %d records: every event of the file exactly once, each airport's in order.", total)
	c, v := verifyGroup(log, delivered)
	if v.count > 0 {
		return fmt.Errorf("the group was not given what is in the log, %d violations:\n  %s", v.count, strings.Join(v.first, "\n  "))
	}
	st.tell("The group was given every one of them: %d deliveries, of which %d were repeats.", c.deliveries, c.repeated)
	st.detail("(Delivery to a group is at least once: what a member had read and not yet committed is")
	st.detail("delivered again when its partition moves or its position is lost.)")
	return nil
}
