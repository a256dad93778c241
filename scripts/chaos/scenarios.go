package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
	"github.com/flotilla-log/flotilla/scripts/measure"
)

// scenario is one way to break a cluster.
type scenario struct {
	name string
	what string
	// more brokers than the three that begin, which run may start.
	more  int
	flags []string
	// defaults: brokers and topics have their default settings, and not those that make much happen in a short time.
	defaults bool
	isolated bool     // needs network namespaces
	tools    []string // programs that it needs
	bound    bound
	prepare  func(e *env) (clean func(), err error)
	load     func(ctx context.Context, e *env) error // fills the cluster before the workload begins
	run      func(ctx context.Context, e *env) error
}

func (s scenario) brokers() int { return startingBrokers + s.more }

// brokerFlags are those of every broker.
func (s scenario) brokerFlags() []string {
	if s.defaults {
		return s.flags
	}
	return append([]string{"--preferred-after", "2s", "--offsets-partitions", "4"}, s.flags...)
}

// settings are those of the topics.
func (s scenario) settings() map[string]string {
	if s.defaults {
		return nil
	}
	return map[string]string{"segment.bytes": "65536"}
}

// notPossible says why the scenario cannot be run here; empty if it can.
func (s scenario) notPossible() string {
	if s.isolated && !namespaced() {
		return "it needs network namespaces (Linux, root)"
	}
	for _, tool := range s.tools {
		if _, err := exec.LookPath(tool); err != nil {
			return "it needs " + tool
		}
	}
	return ""
}

var scenarios = []scenario{
	{name: "kill-leader", what: "SIGKILL of a leader, restarted after 3 s", run: rounds(killLeader)},
	{name: "pause-leader", what: "SIGSTOP of a leader for 4 s", run: rounds(pauseLeader)},
	{name: "pause-all", what: "SIGSTOP of all brokers for 3 s, woken one after the other", run: rounds(pauseAll)},
	{name: "rolling-restart", what: "graceful restart of one broker after the other", run: rounds(rollingRestart)},
	{name: "transfer-storm", what: "leaderships move all the time: graceful restarts without a pause, leaders move back at once",
		flags: []string{"--preferred-after", "300ms"}, run: rounds(transferStorm)},
	{name: "kill-coordinator", what: "SIGKILL of the group's coordinator", run: rounds(killCoordinator)},
	{name: "kill-controller", what: "SIGKILL of the controller", run: rounds(killController)},
	{name: "kill-all", what: "SIGKILL of all brokers at once, restarted", run: rounds(killAll)},
	{name: "kill-all-often", what: "SIGKILL of all brokers again while they start", run: rounds(killAllOften)},
	{name: "lose-a-disk", what: "SIGKILL, the data directory removed, restarted under the same ID", run: rounds(loseDisk)},
	{name: "trim-while-away", what: "records deleted while a broker is down, so that it needs a checkpoint from others when it returns", run: rounds(trimAwhile)},
	{name: "flip-segment", what: "bytes of a stored segment changed while a broker is down", flags: scrubFlags, run: rounds(corrupt("*.log", flip))},
	{name: "flip-checkpoint", what: "bytes of a checkpoint changed while a broker is down", flags: scrubFlags, run: rounds(corrupt("*.ckpt", flip))},
	{name: "flip-index", what: "bytes of an index changed while a broker is down", flags: scrubFlags, run: rounds(corrupt("*.idx", flip))},
	{name: "delete-segment", what: "a segment deleted while a broker is down", flags: scrubFlags, run: rounds(corrupt("*.log", os.Remove))},
	{name: "truncate-segment", what: "a segment cut in half while a broker is down", flags: scrubFlags, run: rounds(corrupt("*.log", halve))},
	{name: "decommission", what: "a fourth broker joins, a second is drained and stopped, a fifth joins", more: 2, run: decommission},
	{name: "isolate-leader", what: "a leader cut off from its peers, not from clients", isolated: true, run: rounds(isolate((*env).victim, true, true))},
	{name: "isolate-controller", what: "the controller cut off from its peers", isolated: true, run: rounds(isolate((*env).controller, true, true))},
	{name: "isolate-coordinator", what: "the group's coordinator cut off from its peers", isolated: true, run: rounds(isolate((*env).coordinator, true, true))},
	{name: "deaf-leader", what: "a leader hears nothing from its peers, which hear it", isolated: true, run: rounds(isolate((*env).victim, false, true))},
	{name: "mute-leader", what: "a leader is not heard by its peers, which it hears", isolated: true, run: rounds(isolate((*env).victim, true, false))},
	{name: "flapping-links", what: "links between brokers come and go", isolated: true, run: rounds(flap)},
	{name: "lossy-links", what: "2, 10 and 30 % of the packets between all brokers are lost", isolated: true, tools: []string{"tc"}, run: struckEnough(rounds(lossy))},
	{name: "lossy-leader", what: "half of the packets that a leader sends to its peers are lost; it hears all that they send", isolated: true, tools: []string{"tc"}, run: struckEnough(rounds(lossyLeader))},
	{name: "slow-links", what: "1 Mbit/s between brokers, with a queue of 500 ms", isolated: true, tools: []string{"tc"}, run: rounds(slow("slow", everyBroker, "1mbit"))},
	{name: "slow-leader-link", what: "256 kbit/s from a leader to its peers, with a queue of 500 ms", isolated: true, tools: []string{"tc"}, run: rounds(slow("slow", oneLeader, "256kbit"))},
	{name: "flip-running", what: "one bit of a sealed segment changed under a running broker", flags: scrubFlags, run: rounds(corruptRunning("*.log", flipInPlace))},
	{name: "delete-running", what: "a sealed segment deleted under a running broker", flags: scrubFlags, run: rounds(corruptRunning("*.log", os.Remove))},
	{name: "truncate-running", what: "a sealed segment cut in half under a running broker", flags: scrubFlags, run: rounds(corruptRunning("*.log", halve))},
	{name: "flip-index-running", what: "one bit of an index changed under a running broker", flags: scrubFlags, run: rounds(corruptRunning("*.idx", flipInPlace))},
	{name: "flip-ckpt-running", what: "one bit of the newest checkpoint changed under a running broker", flags: scrubFlags, run: rounds(corruptRunning("*.ckpt", flipInPlace))},
	{name: "mixed", what: "one fault of all kinds after another, at random", isolated: true, tools: []string{"tc"}, flags: scrubFlags, run: rounds(anyFault)},
	{name: "fsync-error", what: "fdatasync of a partition's segments fails with EIO on its leader", tools: []string{"strace"},
		run: struckEnough(rounds(inject(injection{name: "fsync EIO", calls: flushCalls, what: "error=EIO", time: 3 * time.Second, onePartition: true})))},
	{name: "disk-error", what: "every fdatasync and pwrite of a broker fails with EIO", tools: []string{"strace"},
		run: struckEnough(rounds(inject(injection{name: "disk EIO", calls: flushCalls + ",pwrite64,pwritev", what: "error=EIO", time: 3 * time.Second})))},
	{name: "read-error", what: "every pread of a broker fails with EIO", tools: []string{"strace"}, flags: scrubFlags,
		run: struckEnough(rounds(inject(injection{name: "read EIO", calls: "pread64", what: "error=EIO", time: 2 * time.Second})))},
	{name: "slow-disk", what: "every fdatasync of a broker takes 300 ms longer", tools: []string{"strace"},
		run: struckEnough(rounds(inject(injection{name: "slow disk", calls: flushCalls, what: "delay_enter=300000", time: 6 * time.Second})))},
	{name: "bound-kill-leader", what: "default settings: SIGKILL of a leader; longest gap: median below 1 s, maximum below 2 s", defaults: true, bound: boundKill, run: rounds(settled(killLeader))},
	{name: "bound-rolling-restart", what: "default settings: graceful restart of each broker; no gap of 300 ms, no write given up", defaults: true, bound: boundRolling, run: rounds(settled(rollingRestart))},
	{name: "bound-isolate", what: "default settings: a leader cut off from its peers; gap below 2 s, below 300 ms for partitions that the majority leads", defaults: true, isolated: true, bound: boundIsolate,
		run: rounds(settled(isolate((*env).victim, true, true)))},
	{name: "bound-restart-all", what: "default settings: SIGKILL of all brokers with 1 GiB stored; all of it is there, every partition served within 3 s", defaults: true, bound: boundAll, load: storeBulk,
		run: rounds(settled(restartAll))},
	{name: "full-disk", what: "the disk of one broker fills up and is freed", isolated: true, prepare: smallDisks(1), flags: smallDiskFlags, run: rounds(fill(1))},
	{name: "full-disks", what: "the disks of two brokers fill up and are freed", isolated: true, prepare: smallDisks(2), flags: smallDiskFlags, run: rounds(fill(2))},
}

// rounds repeats one until the time is over.
func rounds(one func(ctx context.Context, e *env) error) func(ctx context.Context, e *env) error {
	return func(ctx context.Context, e *env) error {
		for e.again(ctx) {
			if err := one(ctx, e); err != nil {
				return err
			}
		}
		return nil
	}
}

// anyFault is one round of a scenario chosen at random.
func anyFault(ctx context.Context, e *env) error {
	all := []func(context.Context, *env) error{
		killLeader, pauseLeader, pauseAll, transferStorm, killCoordinator, killController, killAll, loseDisk, lossy, lossyLeader, flap,
		corrupt("*.log", flip), corruptRunning("*.log", flipInPlace), corruptRunning("*.log", os.Remove),
		isolate((*env).victim, true, true), isolate((*env).controller, true, true), isolate((*env).victim, false, true), isolate((*env).victim, true, false),
		slow("slow", everyBroker, "1mbit"),
	}
	return all[e.rnd.IntN(len(all))](ctx, e)
}

func killLeader(ctx context.Context, e *env) error { return e.killAndReturn(ctx, e.victim(ctx)) }

func killCoordinator(ctx context.Context, e *env) error {
	return e.killAndReturn(ctx, e.coordinator(ctx))
}

func killController(ctx context.Context, e *env) error {
	return e.killAndReturn(ctx, e.controller(ctx))
}

func (e *env) killAndReturn(ctx context.Context, i int) error {
	err := e.fault(ctx, "kill", i, func() error {
		e.cluster.Kill(i)
		if err := measure.Pause(ctx, 3*time.Second); err != nil {
			return err
		}
		return e.start(ctx, i)
	})
	return errors.Join(err, measure.Pause(ctx, 3*time.Second))
}

func pauseLeader(ctx context.Context, e *env) error {
	i := e.victim(ctx)
	err := e.fault(ctx, "pause", i, func() error {
		if err := e.cluster.Signal(i, signalStop); err != nil {
			return err
		}
		err := measure.Pause(ctx, 4*time.Second)
		return errors.Join(err, e.cluster.Signal(i, signalContinue))
	})
	return errors.Join(err, measure.Pause(ctx, 3*time.Second))
}

func pauseAll(ctx context.Context, e *env) error {
	order := e.rnd.Perm(startingBrokers)
	err := e.fault(ctx, "pause", nobody, func() error {
		var errs []error
		for _, i := range order {
			errs = append(errs, e.cluster.Signal(i, signalStop))
		}
		errs = append(errs, measure.Pause(ctx, 3*time.Second))
		for _, i := range order {
			errs = append(errs, e.cluster.Signal(i, signalContinue), measure.Pause(ctx, 400*time.Millisecond))
		}
		return errors.Join(errs...)
	})
	return errors.Join(err, measure.Pause(ctx, 3*time.Second))
}

func rollingRestart(ctx context.Context, e *env) error {
	for i := range startingBrokers {
		if err := e.fault(ctx, "restart", i, func() error { return e.restart(ctx, i) }); err != nil {
			return err
		}
		if err := e.healthy(ctx); err != nil {
			return err
		}
		if err := measure.Pause(ctx, 3*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) restart(ctx context.Context, i int) error {
	if err := e.cluster.Stop(i, stopWithin); err != nil {
		return err
	}
	return e.start(ctx, i)
}

func transferStorm(ctx context.Context, e *env) error {
	i := e.rnd.IntN(startingBrokers)
	return e.fault(ctx, "restart", i, func() error { return e.restart(ctx, i) })
}

func killAll(ctx context.Context, e *env) error {
	err := e.fault(ctx, "kill all", nobody, func() error {
		for i := range startingBrokers {
			e.cluster.Kill(i)
		}
		if err := measure.Pause(ctx, time.Second); err != nil {
			return err
		}
		return e.startAll(ctx)
	})
	return errors.Join(err, measure.Pause(ctx, 4*time.Second))
}

func killAllOften(ctx context.Context, e *env) error {
	err := e.fault(ctx, "kill all", nobody, func() error {
		for range 4 {
			for i := range startingBrokers {
				e.cluster.Kill(i)
			}
			// Whether they get as far as to serve is left to chance.
			short, cancel := context.WithTimeout(ctx, time.Duration(300+e.rnd.IntN(2500))*time.Millisecond)
			_ = e.cluster.StartAll(short)
			cancel()
		}
		for i := range startingBrokers {
			e.cluster.Kill(i)
		}
		return e.startAll(ctx)
	})
	return errors.Join(err, measure.Pause(ctx, 4*time.Second))
}

func loseDisk(ctx context.Context, e *env) error {
	i := e.victim(ctx)
	err := e.fault(ctx, "lose a disk", i, func() error {
		e.cluster.Kill(i)
		if err := os.RemoveAll(e.cluster.Dir(i)); err != nil {
			return err
		}
		if err := e.start(ctx, i); err != nil {
			return err
		}
		return e.healthy(ctx)
	})
	return errors.Join(err, measure.Pause(ctx, time.Second))
}

// trimAwhile keeps a broker down for as long as it takes that the log of every partition begins after the end of what it has.
func trimAwhile(ctx context.Context, e *env) error {
	i := e.victim(ctx)
	err := e.fault(ctx, "away", i, func() error {
		ends, err := (&workload{client: e.client}).ends(ctx)
		if err != nil {
			return err
		}
		e.cluster.Kill(i)
		err = e.trimBeyond(ctx, ends)
		if err = errors.Join(err, e.start(ctx, i)); err != nil {
			return err
		}
		return e.healthy(ctx)
	})
	return errors.Join(err, measure.Pause(ctx, 2*time.Second))
}

// trimBeyond deletes records that the group has read, until all before these ends are deleted and two segments more.
func (e *env) trimBeyond(ctx context.Context, ends map[history.Partition]int64) error {
	const segments = 2 * 65536 / 100 // records, roughly
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	for _, tp := range allPartitions()[:eventsPartitions] {
		goal := ends[partitionOf(tp)] + segments
		for {
			committed, err := e.client.Admin().FetchOffsets(ctx, groupName, tp)
			if err == nil && committed[tp].Offset > goal+500 {
				if _, err = e.client.Admin().DeleteRecords(ctx, tp, goal); err == nil {
					break
				}
			}
			if measure.Pause(ctx, 100*time.Millisecond) != nil {
				return fmt.Errorf("deleting records of %s before %d within %s: committed is %d, %v", tp, goal, healthWithin, committed[tp].Offset, err)
			}
		}
	}
	return nil
}

// decommission changes who is in the cluster while it works.
func decommission(ctx context.Context, e *env) error {
	const fourth, second, fifth = 3, 1, 4
	join := func(i int) func() error {
		return func() error {
			if err := e.start(ctx, i); err != nil {
				return err
			}
			e.n++
			if err := e.healthy(ctx); err != nil {
				return err
			}
			if _, err := e.client.Admin().Rebalance(ctx, false); err != nil {
				return err
			}
			return e.healthy(ctx)
		}
	}
	leave := func() error {
		if err := e.drain(ctx, second); err != nil {
			return err
		}
		e.n--
		return e.cluster.Stop(second, stopWithin)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{{"the fourth joins", join(fourth)}, {"the second leaves", leave}, {"the fifth joins", join(fifth)}} {
		if err := e.fault(ctx, step.name, nobody, step.do); err != nil {
			return err
		}
		if err := measure.Pause(ctx, 2*time.Second); err != nil {
			return err
		}
	}
	return nil
}

func (e *env) drain(ctx context.Context, i int) error {
	if _, err := e.client.Admin().Decommission(ctx, int32(i+1)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, healthWithin)
	defer cancel()
	for {
		s, err := e.client.Admin().Status(ctx)
		state := fmt.Sprint(err)
		for _, b := range s.Brokers {
			if b.ID == int32(i+1) {
				if b.State == client.BrokerDrained {
					return nil
				}
				state = fmt.Sprintf("%s, %d replicas, %d leaders; %s", b.State, b.Replicas, b.Leaders, e.problem(ctx))
			}
		}
		if measure.Pause(ctx, 200*time.Millisecond) != nil {
			return fmt.Errorf("broker %d was not drained within %s: %s", i+1, healthWithin, state)
		}
	}
}

// isolate cuts off what is sent by a broker (out), to it (in), or both.
func isolate(victim func(*env, context.Context) int, out, in bool) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		i := victim(e, ctx)
		err := e.fault(ctx, "isolation", i, func() error {
			if err := e.isolate(i, out, in); err != nil {
				return err
			}
			err := measure.Pause(ctx, 5*time.Second)
			return errors.Join(err, e.heal(i, out, in))
		})
		return errors.Join(err, measure.Pause(ctx, 4*time.Second))
	}
}

// flap cuts single links, in one direction each, for short times.
func flap(ctx context.Context, e *env) error {
	err := e.fault(ctx, "flapping", nobody, func() error {
		for range 8 {
			from := e.rnd.IntN(startingBrokers)
			to := (from + 1 + e.rnd.IntN(startingBrokers-1)) % startingBrokers
			if err := e.net.cut(from, to); err != nil {
				return err
			}
			err := measure.Pause(ctx, time.Duration(100+e.rnd.IntN(1400))*time.Millisecond)
			if err := errors.Join(err, e.net.mend(from, to)); err != nil {
				return err
			}
			if err := measure.Pause(ctx, time.Duration(e.rnd.IntN(300))*time.Millisecond); err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, measure.Pause(ctx, 2*time.Second))
}
