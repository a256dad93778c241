package main

import (
	"fmt"
	"io"
	"strings"
)

// The JSON of group commands. Offsets that are not there or could not be learnt are -1.
type (
	groupSummaryJSON struct {
		Group        string `json:"group"`
		State        string `json:"state"`
		ProtocolType string `json:"protocolType"`
		Members      int32  `json:"members"`
		Coordinator  int32  `json:"coordinator"`
	}
	groupJSON struct {
		Group        string            `json:"group"`
		State        string            `json:"state"`
		ProtocolType string            `json:"protocolType"`
		Strategy     string            `json:"strategy"`
		Generation   int32             `json:"generation"`
		Coordinator  string            `json:"coordinator"`
		Members      []groupMemberJSON `json:"members"`
		Offsets      []groupOffsetJSON `json:"offsets"`
	}
	groupMemberJSON struct {
		MemberID         string               `json:"memberId"`
		InstanceID       string               `json:"instanceId,omitempty"`
		ClientID         string               `json:"clientId"`
		ClientHost       string               `json:"clientHost"`
		SessionTimeoutMs int64                `json:"sessionTimeoutMs"`
		Topics           []string             `json:"topics"`
		Assignment       []topicPartitionJSON `json:"assignment"`
	}
	topicPartitionJSON struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
	}
	groupOffsetJSON struct {
		Topic         string `json:"topic"`
		Partition     int32  `json:"partition"`
		Committed     int64  `json:"committedOffset"`
		LogStart      int64  `json:"logStartOffset"`
		HighWatermark int64  `json:"highWatermark"`
		Lag           int64  `json:"lag"`
		MemberID      string `json:"memberId,omitempty"`
		Metadata      string `json:"metadata,omitempty"`
		CommitTimeMs  int64  `json:"commitTimeMs"`
	}
	offsetResetJSON struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		From      int64  `json:"fromOffset"`
		To        int64  `json:"toOffset"`
	}
)

func writeGroupList(w io.Writer, groups []groupSummaryJSON) {
	t := newTable("GROUP", "STATE", "MEMBERS", "COORDINATOR")
	for _, g := range groups {
		t.row(g.Group, g.State, g.Members, brokerName(g.Coordinator))
	}
	t.write(w)
}

func writeGroup(w io.Writer, g *groupJSON) {
	fmt.Fprintf(w, "group %s, %s, generation %d, strategy %s, coordinator %s\n", g.Group, g.State, g.Generation, dash(g.Strategy), dash(g.Coordinator))
	if len(g.Members) > 0 {
		members := newTable("MEMBER", "INSTANCE", "CLIENT", "HOST", "PARTITIONS")
		for _, m := range g.Members {
			members.row(m.MemberID, dash(m.InstanceID), dash(m.ClientID), dash(m.ClientHost), compactPartitions(m.Assignment))
		}
		members.write(w)
	}
	if len(g.Offsets) == 0 {
		fmt.Fprintln(w, "no committed offsets")
		return
	}
	offsets := newTable("TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER")
	for _, o := range g.Offsets {
		offsets.row(o.Topic, o.Partition, known(o.Committed), known(o.HighWatermark), known(o.Lag), dash(o.MemberID))
	}
	offsets.write(w)
}

// compactPartitions shows "orders:0,1,5 users:2". The list is in order of topics.
func compactPartitions(tps []topicPartitionJSON) string {
	var b strings.Builder
	for i, tp := range tps {
		switch {
		case i == 0:
			fmt.Fprintf(&b, "%s:%d", tp.Topic, tp.Partition)
		case tps[i-1].Topic == tp.Topic:
			fmt.Fprintf(&b, ",%d", tp.Partition)
		default:
			fmt.Fprintf(&b, " %s:%d", tp.Topic, tp.Partition)
		}
	}
	return dash(b.String())
}

func writeResets(w io.Writer, resets []offsetResetJSON, executed bool) {
	t := newTable("TOPIC", "PARTITION", "FROM", "TO")
	for _, r := range resets {
		t.row(r.Topic, r.Partition, known(r.From), r.To)
	}
	t.write(w)
	if !executed {
		fmt.Fprintln(w, "Nothing was changed: this was a dry run. Add --execute to do it.")
	}
}
