package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/flotilla-log/flotilla/client"
)

func (a *app) topicCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:     "topic",
		Short:   "Create, look at, change and delete topics",
		Example: "  flotilla topic create orders --partitions 12 --set retention.ms=604800000\n  flotilla topic describe orders",
	}, a.topicCreateCommand(), a.topicListCommand(), a.topicDescribeCommand(), a.topicAlterCommand(), a.topicDeleteCommand(), a.deleteRecordsCommand(),
		a.topicReassignCommand())
}

func (a *app) topicCreateCommand() *cobra.Command {
	var spec client.TopicSpec
	var settings []string
	var ifNotExists bool
	cmd := &cobra.Command{
		Use:   "create TOPIC",
		Short: "Create a topic",
		Long: `Create a topic and wait until its partitions have leaders.

Settings have Kafka's names: retention.ms, retention.bytes, segment.bytes, segment.ms, max.message.bytes, compression.type,
message.timestamp.type; and flush, which is quorum or os. 'flotilla topic describe -o json' explains them.`,
		Example: `  flotilla topic create orders --partitions 12
  flotilla topic create clicks --partitions 6 --replication-factor 3 --set retention.ms=86400000 --set flush=os`,
		Args: exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			spec.Name = args[0]
			if spec.Settings, err = parseSettings("--set", settings); err != nil {
				return err
			}
			return a.createTopic(cmd.Context(), spec, ifNotExists)
		},
	}
	fs := cmd.Flags()
	fs.Int32Var(&spec.Partitions, "partitions", 0, "number of partitions; 0: the cluster's default")
	fs.Int32Var(&spec.ReplicationFactor, "replication-factor", 0, "replicas of each partition; 0: the cluster's default")
	fs.StringArrayVar(&settings, "set", nil, "a setting KEY=VALUE; may be repeated")
	fs.BoolVar(&spec.ValidateOnly, "validate-only", false, "check and place it, but create nothing")
	fs.BoolVar(&ifNotExists, "if-not-exists", false, "do not fail if there is a topic of that name")
	return cmd
}

func (a *app) createTopic(ctx context.Context, spec client.TopicSpec, ifNotExists bool) error {
	return a.withAdmin(func(admin *client.Admin) error {
		t, err := admin.CreateTopic(ctx, spec)
		did := "created"
		switch {
		case ifNotExists && errors.Is(err, client.CodeTopicAlreadyExists):
			did = "found"
			if t, err = admin.DescribeTopic(ctx, spec.Name); err != nil {
				return err
			}
		case err != nil:
			return err
		case spec.ValidateOnly:
			did = "would create"
		}
		return a.emit(topicToJSON(&t), func(w io.Writer) {
			fmt.Fprintf(w, "%s topic %s: %s, replication factor %d\n", did, t.Topic, count(len(t.Partitions), "partition"), t.ReplicationFactor)
		})
	})
}

func (a *app) topicListCommand() *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List topics",
		Example: "  flotilla topic list\n  flotilla topic list --internal -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				list, err := admin.ListTopics(cmd.Context(), internal)
				if err != nil {
					return err
				}
				topics := make([]topicSummaryJSON, len(list))
				for i, t := range list {
					topics[i] = topicSummaryJSON{Topic: t.Topic, Partitions: t.Partitions, ReplicationFactor: t.ReplicationFactor, Internal: t.Internal}
				}
				return a.emit(topics, func(w io.Writer) { writeTopicList(w, topics) })
			})
		},
	}
	cmd.Flags().BoolVar(&internal, "internal", false, "also those that Flotilla keeps for itself")
	return cmd
}

func (a *app) topicDescribeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "describe TOPIC",
		Short:   "Show a topic's settings, and the leader, replicas, offsets and size of each partition",
		Example: "  flotilla topic describe orders\n  flotilla topic describe orders -o json | jq .partitions",
		Args:    exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				t, err := admin.DescribeTopic(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				view := topicToJSON(&t)
				return a.emit(view, func(w io.Writer) { writeTopic(w, view) })
			})
		},
	}
}

func topicToJSON(t *client.TopicDescription) *topicJSON {
	view := &topicJSON{
		Topic: t.Topic, ID: hex.EncodeToString(t.ID), Internal: t.Internal, ReplicationFactor: t.ReplicationFactor,
		Settings: []settingJSON{}, Partitions: []partitionJSON{},
	}
	for _, s := range t.Settings {
		view.Settings = append(view.Settings, settingJSON{Key: s.Key, Value: s.Value, Default: s.IsDefault, Documentation: s.Documentation})
	}
	for _, p := range t.Partitions {
		view.Partitions = append(view.Partitions, partitionJSON{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: orEmpty(p.Replicas), Voters: orEmpty(p.Voters),
			LogStart: p.LogStartOffset, HighWatermark: p.HighWatermark, SizeBytes: p.SizeBytes,
		})
	}
	return view
}

func (a *app) topicAlterCommand() *cobra.Command {
	var set, unset []string
	var partitions int32
	cmd := &cobra.Command{
		Use:   "alter TOPIC",
		Short: "Change a topic's settings, or give it more partitions",
		Long: `Change a topic's settings, or give it more partitions.

More partitions spread keys anew: records of a key that come afterwards may go to another partition than those before. A topic cannot
get fewer partitions.`,
		Example: `  flotilla topic alter orders --set retention.ms=86400000 --unset retention.bytes
  flotilla topic alter orders --partitions 24`,
		Args: exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			settings, err := parseSettings("--set", set)
			if err != nil {
				return err
			}
			if len(settings) == 0 && len(unset) == 0 && partitions == 0 {
				return usageErrorf("nothing to change: give --set, --unset or --partitions")
			}
			return a.alterTopic(cmd.Context(), args[0], settings, unset, partitions)
		},
	}
	fs := cmd.Flags()
	fs.StringArrayVar(&set, "set", nil, "a setting KEY=VALUE; may be repeated")
	fs.StringArrayVar(&unset, "unset", nil, "a setting KEY that goes back to its default; may be repeated")
	fs.Int32Var(&partitions, "partitions", 0, "new number of partitions, more than now")
	cliOnly(cmd, "partitions")
	return cmd
}

func (a *app) alterTopic(ctx context.Context, topic string, set map[string]string, unset []string, partitions int32) error {
	return a.withAdmin(func(admin *client.Admin) (err error) {
		var t client.TopicDescription
		if len(set) > 0 || len(unset) > 0 {
			if t, err = admin.AlterTopic(ctx, topic, set, unset); err != nil {
				return err
			}
		}
		if partitions != 0 {
			if t, err = admin.CreatePartitions(ctx, topic, partitions); err != nil {
				return err
			}
		}
		view := topicToJSON(&t)
		return a.emit(view, func(w io.Writer) { writeTopic(w, view) })
	})
}

func (a *app) topicDeleteCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete TOPIC",
		Short: "Delete a topic with all its records",
		Long: `Delete a topic with all its records, on all replicas. This cannot be undone: on a terminal it asks, elsewhere it
needs --yes.`,
		Example: "  flotilla topic delete orders\n  flotilla topic delete orders --yes",
		Args:    exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.confirm(yes, "delete topic "+args[0]+" with all its records"); err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error {
				if err := admin.DeleteTopic(cmd.Context(), args[0]); err != nil {
					return err
				}
				return a.emit(struct {
					Deleted string `json:"deleted"`
				}{args[0]}, func(w io.Writer) { fmt.Fprintf(w, "deleted topic %s\n", args[0]) })
			})
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cliOnly(cmd, "yes")
	return cmd
}

func (a *app) deleteRecordsCommand() *cobra.Command {
	var partition int32
	var before int64
	var yes bool
	cmd := &cobra.Command{
		Use:   "delete-records TOPIC",
		Short: "Delete the records of a partition below an offset",
		Long: `Move the start of a partition's log up to an offset: what is below can no longer be read, and its space is given back as whole
segments become unneeded. This cannot be undone: on a terminal it asks, elsewhere it needs --yes.`,
		Example: "  flotilla topic delete-records orders --partition 3 --before 120000 --yes",
		Args:    exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if partition < 0 || before < -1 || !cmd.Flags().Changed("before") {
				return usageErrorf("--partition and --before are needed, 0 or more (--before -1: everything there is now)")
			}
			if err := a.confirm(yes, fmt.Sprintf("delete the records of %s/%d below offset %d", args[0], partition, before)); err != nil {
				return err
			}
			return a.withAdmin(func(admin *client.Admin) error {
				start, err := admin.DeleteRecords(cmd.Context(), client.TopicPartition{Topic: args[0], Partition: partition}, before)
				if err != nil {
					return err
				}
				return a.emit(struct {
					Topic     string `json:"topic"`
					Partition int32  `json:"partition"`
					LogStart  int64  `json:"logStartOffset"`
				}{args[0], partition, start}, func(w io.Writer) { fmt.Fprintf(w, "%s/%d now starts at offset %d\n", args[0], partition, start) })
			})
		},
	}
	fs := cmd.Flags()
	fs.Int32VarP(&partition, "partition", "p", -1, "the partition")
	fs.Int64Var(&before, "before", 0, "records below this offset go; -1: all that are there now")
	fs.BoolVarP(&yes, "yes", "y", false, "do not ask")
	cliOnly(cmd, "yes", "partition", "before")
	return cmd
}

// confirm asks a person at a terminal; a program has to say --yes.
func (a *app) confirm(yes bool, what string) error {
	if yes {
		return nil
	}
	f, ok := a.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usageErrorf("to %s, say --yes", what)
	}
	fmt.Fprintf(a.stderr, "Really %s? This cannot be undone. [y/N] ", what)
	answer, err := bufio.NewReader(a.stdin).ReadString('\n')
	if err != nil && answer == "" {
		return withCode(exitInterrupted, errors.New("no answer"))
	}
	if word := strings.ToLower(strings.TrimSpace(answer)); word != "y" && word != "yes" {
		return withCode(exitInterrupted, errors.New("not confirmed"))
	}
	return nil
}
