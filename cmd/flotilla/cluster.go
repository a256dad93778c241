package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

func (a *app) clusterCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:     "cluster",
		Short:   "Look at the cluster, drain brokers, balance it",
		Example: "  flotilla cluster status\n  flotilla cluster decommission 4 --wait",
	}, a.clusterStatusCommand(), a.clusterClientsCommand(), a.decommissionCommand(), a.recommissionCommand(), a.rebalanceCommand())
}

func (a *app) clusterStatusCommand() *cobra.Command {
	var check bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show brokers, their state, and partitions with problems",
		Long: `Show brokers, their state, and partitions with problems.

With --check it exits with 7 if there is anything for an operator to do: a broker that failed or left, no controller, or a partition with a
problem.`,
		Example: "  flotilla cluster status\n  flotilla cluster status --check -o json >/dev/null && echo all well",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				s, err := admin.Status(cmd.Context())
				if err != nil {
					return err
				}
				view := clusterToJSON(&s)
				if err := a.emit(view, func(w io.Writer) { writeCluster(w, view) }); err != nil {
					return err
				}
				if check && !view.healthy() {
					return withCode(exitUnhealthy, errors.New("the cluster is not healthy"))
				}
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&check, "check", false, "exit with 7 unless all is well")
	return cmd
}

func clusterToJSON(s *client.ClusterStatus) *clusterJSON {
	view := &clusterJSON{
		ClusterID: s.ClusterID, Controller: s.Controller, AnsweredBy: s.BrokerID, Version: s.Version, Topics: s.Topics, Partitions: s.Partitions,
		Brokers: []brokerJSON{}, Problems: []partitionIssue{},
	}
	for _, b := range s.Brokers {
		view.Brokers = append(view.Brokers, brokerJSON{
			ID: b.ID, State: string(b.State), GRPCAddress: b.GRPCAddress, PeerAddress: b.PeerAddress, GossipAddress: b.GossipAddress, Rack: b.Rack,
			Version: b.Version, Replicas: b.Replicas, Leaders: b.Leaders, Controller: b.Controller, MetadataVoter: b.MetadataVoter,
			KafkaListeners: kafkaListeners(b.KafkaListeners),
		})
	}
	for _, p := range s.Problems {
		view.Problems = append(view.Problems, partitionIssue{Topic: p.Topic, Partition: p.Partition, Problem: p.Problem})
	}
	return view
}

func kafkaListeners(list []client.KafkaListener) []listenerJSON {
	var out []listenerJSON
	for _, l := range list {
		out = append(out, listenerJSON{l.Name, l.Address})
	}
	return out
}

func brokerArg(s string) (int32, error) {
	id, err := strconv.ParseInt(s, 10, 32)
	if err != nil || id < 0 {
		return 0, usageErrorf("%q is no broker ID: it is a number, 0 or more", s)
	}
	return int32(id), nil
}

func (a *app) decommissionCommand() *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "decommission BROKER",
		Short: "Move everything away from a broker, so that it can be stopped for good",
		Long: `Move all replicas and leaderships away from a broker. The broker keeps running and serving while that goes on; when its state is
drained, it may be stopped for good. The replicas of a broker that is down already are rebuilt from the others, at once.
'recommission' takes it back.

The command returns when the wish is recorded; with --wait, when the broker is drained (--timeout does not bound that).`,
		Example: "  flotilla cluster decommission 4\n  flotilla cluster decommission 4 --wait",
		Args:    exactArgs("BROKER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := brokerArg(args[0])
			if err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error { return a.decommission(cmd.Context(), admin, id, wait) })
		},
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "return when the broker is drained")
	return cmd
}

// drainPollInterval is how often decommission --wait asks how far it is.
const drainPollInterval = time.Second

func (a *app) decommission(ctx context.Context, admin *client.Admin, id int32, wait bool) error {
	left, err := admin.Decommission(ctx, id)
	if err != nil {
		return err
	}
	state := "draining"
	if wait {
		if err := a.waitDrained(ctx, admin, id); err != nil {
			return err
		}
		left, state = 0, "drained"
	}
	return a.emit(struct {
		Broker         int32  `json:"broker"`
		State          string `json:"state"`
		ReplicasToMove int    `json:"replicasToMove"`
	}{id, state, left}, func(w io.Writer) {
		if state == "drained" {
			fmt.Fprintf(w, "broker %d is drained: it may be stopped for good\n", id)
			return
		}
		fmt.Fprintf(w, "broker %d is draining: %s to move; see 'flotilla cluster status'\n", id, count(left, "replica"))
	})
}

func (a *app) waitDrained(ctx context.Context, admin *client.Admin, id int32) error {
	tick := time.NewTicker(drainPollInterval)
	defer tick.Stop()
	for shown := int32(-1); ; {
		s, err := admin.Status(ctx)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(s.Brokers, func(b client.BrokerStatus) bool { return b.ID == id }) {
			return nil // drained, stopped and forgotten
		}
		for _, b := range s.Brokers {
			if b.ID != id {
				continue
			}
			if b.State == client.BrokerDrained {
				return nil
			}
			if b.Replicas != shown {
				shown = b.Replicas
				fmt.Fprintf(a.stderr, "%s left on broker %d\n", count(int(shown), "replica"), id)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *app) recommissionCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "recommission BROKER",
		Short:   "Take a decommission back",
		Long:    "Take a decommission back: the broker may get replicas again. What was moved away comes back with 'flotilla cluster rebalance'.",
		Example: "  flotilla cluster recommission 4",
		Args:    exactArgs("BROKER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := brokerArg(args[0])
			if err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error {
				if err := admin.Recommission(cmd.Context(), id); err != nil {
					return err
				}
				return a.emit(struct {
					Broker int32  `json:"broker"`
					State  string `json:"state"`
				}{id, "alive"}, func(w io.Writer) { fmt.Fprintf(w, "broker %d may hold replicas again\n", id) })
			})
		},
	}
}

func (a *app) rebalanceCommand() *cobra.Command {
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "rebalance",
		Short: "Spread replicas and leaders evenly over the brokers, moving as little as possible",
		Long: `Spread replicas and leaders evenly over the brokers, moving as little as possible.

The command returns when the plan is recorded; the moves follow a few at a time, and 'flotilla cluster status' shows them.`,
		Example: "  flotilla cluster rebalance --dry-run\n  flotilla cluster rebalance",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				plan, err := admin.Rebalance(cmd.Context(), dryRun)
				if err != nil {
					return err
				}
				view := &rebalanceJSON{DryRun: dryRun, Moves: []moveJSON{}, LeaderTransfers: plan.LeaderTransfers}
				for _, m := range plan.Moves {
					view.Moves = append(view.Moves, moveJSON{Topic: m.Topic, Partition: m.Partition, From: m.From, To: m.To})
				}
				return a.emit(view, func(w io.Writer) { writeRebalance(w, view) })
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be moved")
	return cmd
}
