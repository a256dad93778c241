package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/scripts/measure"
)

// floor measures hashicorp/raft by itself: as many groups of three replicas, with the timeouts that brokers use, logs and connections in memory, and nothing else. All three
// replicas of each are in this process, so a third of what it takes is what a broker cannot do without.
func floor(ctx context.Context, o options, out io.Writer) error {
	var nodes []*raft.Raft
	defer func() {
		for _, r := range nodes {
			_ = r.Shutdown()
		}
	}()
	debug.SetGCPercent(25) // as an idle broker has it
	for range o.partitions {
		group, err := raftGroup()
		nodes = append(nodes, group...)
		if err != nil {
			return err
		}
	}
	if err := measure.Pause(ctx, o.settle); err != nil {
		return err
	}
	for range 3 {
		runtime.GC()
	}
	before, start := processorTime(), time.Now()
	if err := measure.Pause(ctx, o.measure); err != nil {
		return err
	}
	took, used := time.Since(start), processorTime()-before
	m := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/sched/goroutines:goroutines"}}
	metrics.Read(m)
	third := func(i int) float64 { return float64(m[i].Value.Uint64()) / brokers }
	fmt.Fprintf(out, "raft alone, a third: %.0f goroutines, %.0f MB of stacks, %.0f MB of heap in use\n", third(2), third(1)/1e6, third(0)/1e6)
	fmt.Fprintf(out, "raft alone, together: %.1f %% of one core, over %.0f s\n", percent(used, took), took.Seconds())
	return nil
}

func processorTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // fails for other arguments only
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// raftGroup starts a group and has its first replica elected.
func raftGroup() (nodes []*raft.Raft, err error) {
	var servers []raft.Server
	var transports []*raft.InmemTransport
	for i := range brokers {
		addr, t := raft.NewInmemTransport(raft.ServerAddress(fmt.Sprint(i)))
		for j, other := range transports {
			t.Connect(servers[j].Address, other)
			other.Connect(addr, t)
		}
		servers, transports = append(servers, raft.Server{ID: raft.ServerID(addr), Address: addr}), append(transports, t)
	}
	for i, t := range transports {
		c := raft.DefaultConfig()
		c.LocalID, c.Logger = servers[i].ID, hclog.NewNullLogger()
		c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout, c.CommitTimeout = time.Minute, time.Minute, 40*time.Second, 20*time.Second
		c.SnapshotInterval, c.SnapshotThreshold, c.BatchApplyCh, c.NoLegacyTelemetry = time.Hour, math.MaxUint64, true, true
		store := raft.NewInmemStore()
		r, err := raft.NewRaft(c, noMachine{}, store, store, raft.NewDiscardSnapshotStore(), t)
		if err != nil {
			return nodes, err
		}
		nodes = append(nodes, r)
		if err := r.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			return nodes, err
		}
	}
	req := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(servers[1].ID), Addr: []byte(servers[1].Address)}}
	return nodes, transports[1].TimeoutNow(servers[0].ID, servers[0].Address, req, &raft.TimeoutNowResponse{})
}

// noMachine is a state machine without a state.
type noMachine struct{}

func (noMachine) Apply(*raft.Log) any                 { return nil }
func (noMachine) Snapshot() (raft.FSMSnapshot, error) { return nil, raft.ErrNothingNewToSnapshot }
func (noMachine) Restore(rc io.ReadCloser) error      { return rc.Close() }
