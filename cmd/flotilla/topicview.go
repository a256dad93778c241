package main

import (
	"fmt"
	"io"
	"strings"
)

// The JSON of topic commands. Offsets and sizes that the broker asked could not learn are -1, as is the leader during an election.
type (
	topicSummaryJSON struct {
		Topic             string `json:"topic"`
		Partitions        int32  `json:"partitions"`
		ReplicationFactor int32  `json:"replicationFactor"`
		Internal          bool   `json:"internal,omitempty"`
	}
	topicJSON struct {
		Topic             string          `json:"topic"`
		ID                string          `json:"id"`
		Internal          bool            `json:"internal,omitempty"`
		ReplicationFactor int32           `json:"replicationFactor"`
		Settings          []settingJSON   `json:"settings"`
		Partitions        []partitionJSON `json:"partitions"`
	}
	settingJSON struct {
		Key           string `json:"key"`
		Value         string `json:"value"`
		Default       bool   `json:"default"`
		Documentation string `json:"documentation,omitempty"`
	}
	partitionJSON struct {
		Partition     int32   `json:"partition"`
		Leader        int32   `json:"leader"`
		LeaderEpoch   int32   `json:"leaderEpoch"`
		Replicas      []int32 `json:"replicas"`
		Voters        []int32 `json:"voters"`
		LogStart      int64   `json:"logStartOffset"`
		HighWatermark int64   `json:"highWatermark"`
		SizeBytes     int64   `json:"sizeBytes"`
	}
)

func writeTopicList(w io.Writer, topics []topicSummaryJSON) {
	t := newTable("TOPIC", "PARTITIONS", "REPLICATION")
	for _, s := range topics {
		t.row(s.Topic, s.Partitions, s.ReplicationFactor)
	}
	t.write(w)
}

func writeTopic(w io.Writer, t *topicJSON) {
	fmt.Fprintf(w, "topic %s, %s, replication factor %d, ID %s\n", t.Topic, count(len(t.Partitions), "partition"), t.ReplicationFactor, t.ID)
	settings := newTable("SETTING", "VALUE", "")
	for _, s := range t.Settings {
		origin := "set on the topic"
		if s.Default {
			origin = "default"
		}
		settings.row(s.Key, s.Value, origin)
	}
	settings.write(w)
	writePartitions(w, t.Partitions)
}

func writePartitions(w io.Writer, partitions []partitionJSON) {
	t := newTable("PARTITION", "LEADER", "EPOCH", "REPLICAS", "VOTERS", "START", "END", "SIZE")
	for _, p := range partitions {
		t.row(p.Partition, brokerName(p.Leader), p.LeaderEpoch, joinInts(p.Replicas), joinInts(p.Voters),
			known(p.LogStart), known(p.HighWatermark), knownBytes(p.SizeBytes))
	}
	t.write(w)
}

// parseSettings reads KEY=VALUE pairs.
func parseSettings(flag string, pairs []string) (map[string]string, error) {
	settings := map[string]string{}
	for _, pair := range pairs {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return nil, usageErrorf("%s %q is not KEY=VALUE, such as retention.ms=604800000", flag, pair)
		}
		if _, twice := settings[key]; twice {
			return nil, usageErrorf("%s %s is given twice", flag, key)
		}
		settings[key] = value
	}
	return settings, nil
}
