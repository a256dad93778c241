package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/chaos/checker"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

const (
	startingBrokers = 3
	warmUp          = 3 * time.Second
	settleWithin    = 60 * time.Second
	catchUpWithin   = 60 * time.Second
	readBackWithin  = 60 * time.Second
	// minAcks and minDuring make a run valid.
	minAcks   = 500
	minDuring = 20
	// scenarioLimit bounds a scenario beyond the time it was given.
	scenarioLimit = 6 * time.Minute
)

// play runs one scenario once, on a cluster of its own. An error is one of the run itself; what the cluster does wrong is in the report.
func play(ctx context.Context, o options, s scenario, rnd *rand.Rand) (r *report, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.time+scenarioLimit)
	defer cancel()
	e, err := newEnv(s, o, rnd)
	if err != nil {
		return nil, err
	}
	defer func() {
		if o.keep != "" && (r == nil || !r.good()) {
			err = errors.Join(err, e.keepLogs(filepath.Join(o.keep, fmt.Sprint(s.name, "-", o.seed))))
		}
		err = errors.Join(err, e.close())
	}()
	if s.prepare != nil {
		clean, err := s.prepare(e)
		if err != nil {
			return nil, err
		}
		defer clean()
	}
	result := &report{name: s.name, seed: o.seed}
	if err := e.play(ctx, o, s, result); err != nil {
		return nil, err
	}
	return result, nil
}

// play works, breaks, heals, settles, reads back and judges. What the cluster does wrong goes into the report; an error is one of the run itself.
func (e *env) play(ctx context.Context, o options, s scenario, r *report) error {
	if err := e.startAll(ctx); err != nil {
		return err
	}
	e.rec = history.NewRecorder()
	if s.load != nil {
		if err := s.load(ctx, e); err != nil {
			return err
		}
	}
	w := &workload{rec: e.rec, client: e.client, addrs: e.cluster.Addrs()[:startingBrokers], settings: s.settings()}
	e.work = w
	if err := w.start(ctx); err != nil {
		return err
	}
	if err := measure.Pause(ctx, warmUp); err != nil {
		return err
	}
	e.end = time.Now().Add(o.time)
	r.add(s.run(ctx, e))
	r.add(e.crashed())
	if err := e.settle(ctx, w); err != nil {
		r.add(err)
		r.add(w.stop(5 * time.Second))
	} else {
		r.add(w.stopAfterGroup(ctx))
	}
	r.add(e.readBack(ctx))
	r.add(e.replicas())
	r.add(e.panics())
	h := e.rec.History()
	r.result = checker.Check(h, checker.Options{MinAcks: minAcks, MinDuring: minDuring})
	r.gaps, r.rounds, r.trouble, r.notes, r.lost, r.serving = gaps(h), e.rounds, w.trouble, e.notes, givenUp(h), e.serving
	return nil
}

// settle waits until every partition acknowledges again.
func (e *env) settle(ctx context.Context, w *workload) error {
	if err := w.servedSince(ctx, int64(e.rec.Now())); err != nil {
		return err
	}
	return e.healthy(ctx)
}

// servedSince waits until every partition has acknowledged after a time, in ns since the run began.
func (w *workload) servedSince(ctx context.Context, since int64) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for i := range w.lastAck {
		for w.lastAck[i].Load() <= since {
			if measure.Pause(ctx, 5*time.Millisecond) != nil {
				return fmt.Errorf("%s/%d was not served again within %s", eventsTopic, i, settleWithin)
			}
		}
	}
	return nil
}

// stopAfterGroup stops the producers' side first by letting the group catch up with what is there, then all.
func (w *workload) stopAfterGroup(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpWithin)
	defer cancel()
	ends, err := w.ends(ctx)
	if err != nil {
		return errors.Join(err, w.stop(deliveryTimeout+10*time.Second))
	}
	for {
		done, behind := w.group.caughtUp(ctx, ends)
		if done {
			return w.stop(deliveryTimeout + 10*time.Second)
		}
		if measure.Pause(ctx, 100*time.Millisecond) != nil {
			return errors.Join(fmt.Errorf("the group did not catch up within %s: %w", catchUpWithin, behind), w.stop(deliveryTimeout+10*time.Second))
		}
	}
}

func (w *workload) ends(ctx context.Context) (map[history.Partition]int64, error) {
	return w.endsOf(ctx, allPartitions())
}

func (w *workload) endsOf(ctx context.Context, tps []client.TopicPartition) (map[history.Partition]int64, error) {
	positions := map[client.TopicPartition]client.Position{}
	for _, tp := range tps {
		positions[tp] = client.Latest()
	}
	ends := map[history.Partition]int64{}
	for tp, at := range w.client.Admin().ListOffsets(ctx, positions) {
		if at.Err != nil {
			return nil, fmt.Errorf("end of %s: %w", tp, at.Err)
		}
		ends[partitionOf(tp)] = at.Offset
	}
	return ends, nil
}

// readBack reads every partition from its beginning to its end.
func (e *env) readBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readBackWithin)
	defer cancel()
	w := &workload{client: e.client}
	all := append(allPartitions(), e.more...)
	ends, err := w.endsOf(ctx, all)
	if err != nil {
		return err
	}
	for _, tp := range all {
		if err := e.readPartition(ctx, tp, ends[partitionOf(tp)]); err != nil {
			return fmt.Errorf("reading %s back: %w", tp, err)
		}
	}
	return nil
}

func (e *env) readPartition(ctx context.Context, tp client.TopicPartition, end int64) error {
	k, err := e.client.NewConsumer()
	if err != nil {
		return err
	}
	defer func() { _ = k.Close() }()
	if err := k.Assign(client.Assignment{Topic: tp.Topic, Partition: tp.Partition, Start: client.Earliest()}); err != nil {
		return err
	}
	at := e.client.Admin().ListOffsets(ctx, map[client.TopicPartition]client.Position{tp: client.Earliest()})[tp]
	if at.Err != nil {
		return at.Err
	}
	final := history.Final{Partition: partitionOf(tp), LogStart: at.Offset}
	for next := at.Offset; next < end; {
		records, err := k.Poll(ctx)
		if err != nil {
			return err
		}
		for _, r := range records {
			final.Records = append(final.Records, history.Read{Offset: r.Offset, Value: digest(r.Value)})
			next = r.Offset + 1
		}
	}
	e.rec.Final(final)
	return nil
}

func (e *env) keepLogs(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for i := range len(e.cluster.Addrs()) {
		data, err := os.ReadFile(e.cluster.LogFile(i))
		if err != nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(e.cluster.LogFile(i))), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
