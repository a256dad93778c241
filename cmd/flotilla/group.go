package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

func (a *app) groupCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:     "group",
		Short:   "Look at consumer groups, move their offsets, delete them",
		Example: "  flotilla group describe billing\n  flotilla group reset-offsets billing --topics orders --to time:2026-01-31T00:00:00Z --execute",
	}, a.groupListCommand(), a.groupDescribeCommand(), a.groupDeleteCommand(), a.groupResetCommand())
}

func (a *app) groupListCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "List consumer groups",
		Example: "  flotilla group list\n  flotilla group list -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				list, err := admin.ListGroups(cmd.Context())
				if err != nil {
					return err
				}
				groups := make([]groupSummaryJSON, len(list))
				for i, g := range list {
					groups[i] = groupSummaryJSON{Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Members: g.Members, Coordinator: g.Coordinator}
				}
				return a.emit(groups, func(w io.Writer) { writeGroupList(w, groups) })
			})
		},
	}
}

func (a *app) groupDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "describe GROUP",
		Short:   "Show a group's members, what they are assigned, committed offsets and lag",
		Example: "  flotilla group describe billing\n  flotilla group describe billing -o json | jq '[.offsets[].lag] | add'",
		Args:    exactArgs("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				g, err := admin.DescribeGroup(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				view := groupToJSON(&g)
				return a.emit(view, func(w io.Writer) { writeGroup(w, view) })
			})
		},
	}
}

func groupToJSON(g *client.GroupDescription) *groupJSON {
	view := &groupJSON{
		Group: g.Group, State: g.State, ProtocolType: g.ProtocolType, Strategy: g.Protocol, Generation: g.Generation,
		Coordinator: g.Coordinator.Address, Members: []groupMemberJSON{}, Offsets: []groupOffsetJSON{},
	}
	for _, m := range g.Members {
		member := groupMemberJSON{
			MemberID: m.MemberID, InstanceID: m.InstanceID, ClientID: m.ClientID, ClientHost: m.ClientHost,
			SessionTimeoutMs: m.SessionTimeout.Milliseconds(), Topics: orEmpty(m.Topics), Assignment: []topicPartitionJSON{},
		}
		for _, tp := range m.Assignment {
			member.Assignment = append(member.Assignment, topicPartitionJSON{Topic: tp.Topic, Partition: tp.Partition})
		}
		view.Members = append(view.Members, member)
	}
	for _, o := range g.Offsets {
		view.Offsets = append(view.Offsets, groupOffsetJSON{
			Topic: o.Topic, Partition: o.Partition, Committed: o.CommittedOffset, LogStart: o.LogStartOffset, HighWatermark: o.HighWatermark,
			Lag: o.Lag, MemberID: o.MemberID, Metadata: o.Metadata, CommitTimeMs: millisOf(o.CommitTime),
		})
	}
	return view
}

// millisOf is -1 for the zero time.
func millisOf(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.UnixMilli()
}

func (a *app) groupDeleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete GROUP",
		Short: "Delete a group that has no members, with its committed offsets",
		Long: `Delete a group that has no members, with its committed offsets. This cannot be undone: on a terminal it asks, elsewhere it
needs --yes.`,
		Example: "  flotilla group delete billing --yes",
		Args:    exactArgs("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(yes, "delete group "+args[0]+" with its committed offsets"); err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error {
				if err := admin.DeleteGroup(cmd.Context(), args[0]); err != nil {
					return err
				}
				return a.emit(struct {
					Deleted string `json:"deleted"`
				}{args[0]}, func(w io.Writer) { fmt.Fprintf(w, "deleted group %s\n", args[0]) })
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cliOnly(cmd, "yes")
	return cmd
}

type resetOptions struct {
	topics     []string
	partitions []int32
	to         string
	execute    bool
}

func (a *app) groupResetCommand() *cobra.Command {
	var o resetOptions
	cmd := &cobra.Command{
		Use:   "reset-offsets GROUP",
		Short: "Move the committed offsets of a group that has no members",
		Long: `Move the committed offsets of a group that has no members, or show what that would do.

As with Kafka's tool, nothing is changed without --execute. Without --topics it is about all topics for which the group
has offsets. Offsets are kept within the bounds of the log.`,
		Example: `  flotilla group reset-offsets billing --to earliest
  flotilla group reset-offsets billing --topics orders --to time:2026-01-31T00:00:00Z --execute
  flotilla group reset-offsets billing --topics orders --partitions 3 --to offset:1200 --execute
  flotilla group reset-offsets billing --to shift:-100 --execute`,
		Args: exactArgs("GROUP"),
		RunE: func(cmd *cobra.Command, args []string) error {
			req, err := o.request(args[0])
			if err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error {
				list, err := admin.ResetOffsets(cmd.Context(), req)
				if err != nil {
					return err
				}
				return a.emitResets(list, o.execute)
			})
		},
	}
	fs := cmd.Flags()
	fs.StringSliceVar(&o.topics, "topics", nil, "only these topics")
	fs.Int32SliceVarP(&o.partitions, "partitions", "p", nil, "only these partitions, of the one topic given")
	fs.StringVar(&o.to, "to", "", "where to: earliest, latest, offset:N, time:T (RFC 3339 or Unix ms), or shift:N (may be negative)")
	fs.BoolVar(&o.execute, "execute", false, "do it, rather than show what would be done")
	cliOnly(cmd, "execute", "to")
	return cmd
}

func (o *resetOptions) request(group string) (client.ResetRequest, error) {
	req := client.ResetRequest{Group: group, Topics: o.topics, DryRun: !o.execute}
	if len(o.partitions) > 0 && len(o.topics) != 1 {
		return req, usageErrorf("--partitions needs exactly one topic in --topics")
	}
	for _, p := range o.partitions {
		req.Partitions = append(req.Partitions, client.TopicPartition{Topic: o.topics[0], Partition: p})
	}
	to, err := parseResetTo(o.to)
	req.To = to
	return req, err
}

func parseResetTo(s string) (client.ResetTo, error) {
	if n, ok := strings.CutPrefix(s, "shift:"); ok {
		shift, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return client.ResetTo{}, usageErrorf("--to %s: %q is not a number", s, n)
		}
		return client.ByShift(shift), nil
	}
	start, err := parseFrom(s)
	if err != nil || start.kind == startLast {
		return client.ResetTo{}, usageErrorf("--to %q: use earliest, latest, offset:N, time:T or shift:N", s)
	}
	return client.ToPosition(start.position()), nil
}

func (a *app) emitResets(list []client.OffsetReset, executed bool) error {
	resets := make([]offsetResetJSON, len(list))
	for i, r := range list {
		resets[i] = offsetResetJSON{Topic: r.Topic, Partition: r.Partition, From: r.From, To: r.To}
	}
	return a.emit(struct {
		Executed bool              `json:"executed"`
		Resets   []offsetResetJSON `json:"resets"`
	}{executed, resets}, func(w io.Writer) { writeResets(w, resets, executed) })
}
