package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

func (a *app) topicReassignCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reassign [TOPIC/PARTITION=BROKER,... | TOPIC/PARTITION=cancel]...",
		Short: "Move replicas to the brokers named, or list such moves",
		Long: `Move the replicas of partitions to the brokers named, of which the first is to be the preferred leader; there may be more or fewer than
before. The cluster takes note and moves them at its own pace; without arguments, the moves that have not ended are listed. 'cancel' goes back to
where the replicas were. Rebalances that the cluster begins by itself leave these partitions alone; 'flotilla cluster rebalance' does not.`,
		Example: `  flotilla topic reassign orders/0=4,5,6 orders/1=5,6,4
  flotilla topic reassign
  flotilla topic reassign orders/0=cancel`,
		RunE: func(cmd *cobra.Command, args []string) error {
			targets, err := parseTargets(args)
			if err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error {
				if len(targets) == 0 {
					list, err := admin.Reassignments(cmd.Context())
					if err != nil {
						return err
					}
					moves := toMoves(list)
					return a.emit(moves, func(w io.Writer) { writeMoves(w, moves) })
				}
				errs, err := admin.Reassign(cmd.Context(), targets)
				if err = errors.Join(append(errs, err)...); err != nil {
					return err
				}
				return a.emit(struct {
					Taken int `json:"taken"`
				}{len(targets)}, func(w io.Writer) {
					fmt.Fprintf(w, "%s; 'flotilla topic reassign' lists what is under way\n", count(len(targets), "partition"))
				})
			})
		},
	}
}

// parseTargets reads orders/3=4,5,6 and orders/3=cancel.
func parseTargets(args []string) ([]client.PartitionTarget, error) {
	var out []client.PartitionTarget
	for _, arg := range args {
		name, brokers, ok := strings.Cut(arg, "=")
		slash := strings.LastIndex(name, "/")
		if !ok || slash < 1 {
			return nil, usageErrorf("%q is not TOPIC/PARTITION=BROKER,BROKER,... or TOPIC/PARTITION=cancel", arg)
		}
		n, err := strconv.ParseInt(name[slash+1:], 10, 32)
		if err != nil || n < 0 {
			return nil, usageErrorf("%q: %q is not a partition's number", arg, name[slash+1:])
		}
		t := client.PartitionTarget{TopicPartition: client.TopicPartition{Topic: name[:slash], Partition: int32(n)}, Cancel: brokers == "cancel"}
		if t.Replicas, err = parseBrokers(brokers); err != nil && !t.Cancel {
			return nil, usageErrorf("%q: %v", arg, err)
		}
		out = append(out, t)
	}
	return out, nil
}

func parseBrokers(list string) ([]int32, error) {
	var out []int32
	for _, s := range strings.Split(list, ",") {
		id, err := strconv.ParseInt(strings.TrimSpace(s), 10, 32)
		if err != nil || id < 0 {
			return nil, fmt.Errorf("%q is not a broker's number", s)
		}
		out = append(out, int32(id))
	}
	return out, nil
}

type reassignmentJSON struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Replicas  []int32 `json:"replicas"`
	Adding    []int32 `json:"adding"`
	Removing  []int32 `json:"removing"`
}

func toMoves(list []client.Reassignment) []reassignmentJSON {
	out := make([]reassignmentJSON, len(list))
	for i, r := range list {
		out[i] = reassignmentJSON{Topic: r.Topic, Partition: r.Partition, Replicas: nonNil(r.Replicas), Adding: nonNil(r.Adding), Removing: nonNil(r.Removing)}
	}
	return out
}

func nonNil(list []int32) []int32 {
	if list == nil {
		return []int32{}
	}
	return list
}

func writeMoves(w io.Writer, moves []reassignmentJSON) {
	if len(moves) == 0 {
		fmt.Fprintln(w, "no partition is being reassigned")
		return
	}
	for _, m := range moves {
		fmt.Fprintf(w, "%s/%d: replicas on %v, to come on %v, to go from %v\n", m.Topic, m.Partition, m.Replicas, m.Adding, m.Removing)
	}
}
