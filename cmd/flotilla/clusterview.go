package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
)

// The JSON of cluster commands.
type (
	clusterJSON struct {
		ClusterID  string           `json:"clusterId"`
		Controller int32            `json:"controller"`
		AnsweredBy int32            `json:"answeredBy"`
		Version    string           `json:"version"`
		Topics     int32            `json:"topics"`
		Partitions int32            `json:"partitions"`
		Brokers    []brokerJSON     `json:"brokers"`
		Problems   []partitionIssue `json:"problems"`
	}
	brokerJSON struct {
		ID            int32  `json:"id"`
		State         string `json:"state"`
		GRPCAddress   string `json:"grpcAddress"`
		PeerAddress   string `json:"peerAddress"`
		GossipAddress string `json:"gossipAddress"`
		Rack          string `json:"rack,omitempty"`
		Version       string `json:"version"`
		Replicas      int32  `json:"replicas"`
		Leaders       int32  `json:"leaders"`
		Controller    bool   `json:"controller"`
		MetadataVoter bool   `json:"metadataVoter"`
		// KafkaListeners are what Kafka clients are told.
		KafkaListeners []listenerJSON `json:"kafkaListeners,omitempty"`
	}
	listenerJSON struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	}
	partitionIssue struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Problem   string `json:"problem"`
	}
	rebalanceJSON struct {
		DryRun          bool       `json:"dryRun"`
		Moves           []moveJSON `json:"moves"`
		LeaderTransfers int32      `json:"leaderTransfers"`
	}
	moveJSON struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		From      int32  `json:"fromBroker"`
		To        int32  `json:"toBroker"`
	}
)

// healthy says whether an operator has nothing to do: every broker is alive or drained on purpose, there is a controller and no
// partition has a problem.
func (c *clusterJSON) healthy() bool {
	for _, b := range c.Brokers {
		if b.State != "alive" && b.State != "drained" && b.State != "draining" {
			return false
		}
	}
	return c.Controller >= 0 && len(c.Problems) == 0
}

func writeCluster(w io.Writer, c *clusterJSON) {
	fmt.Fprintf(w, "cluster %s, %s, %s, %s, controller %s\n", dash(c.ClusterID), count(len(c.Brokers), "broker"),
		count(int(c.Topics), "topic"), count(int(c.Partitions), "partition"), brokerName(c.Controller))
	t := newTable("BROKER", "STATE", "REPLICAS", "LEADERS", "ROLES", "RACK", "CLIENTS", "KAFKA", "PEERS", "GOSSIP", "VERSION")
	for _, b := range c.Brokers {
		t.row(b.ID, b.State, b.Replicas, b.Leaders, roles(b), dash(b.Rack), b.GRPCAddress, kafkaCell(b.KafkaListeners), b.PeerAddress, b.GossipAddress, dash(b.Version))
	}
	t.write(w)
	if len(c.Problems) == 0 {
		fmt.Fprintln(w, "no problems")
		return
	}
	fmt.Fprintln(w, count(len(c.Problems), "problem")+":")
	for _, p := range c.Problems {
		fmt.Fprintf(w, "  %s/%d: %s\n", p.Topic, p.Partition, p.Problem)
	}
}

// kafkaCell shows Kafka listeners: a single one that has no name of its own as its address alone.
func kafkaCell(list []listenerJSON) string {
	if len(list) == 1 && list[0].Name == api.DefaultKafkaListener {
		return list[0].Address
	}
	var cells []string
	for _, l := range list {
		cells = append(cells, l.Name+"="+l.Address)
	}
	return dash(strings.Join(cells, ","))
}

func roles(b brokerJSON) string {
	var names []string
	if b.Controller {
		names = append(names, "controller")
	}
	if b.MetadataVoter {
		names = append(names, "voter")
	}
	return dash(strings.Join(names, ","))
}

func writeRebalance(w io.Writer, r *rebalanceJSON) {
	if len(r.Moves) == 0 && r.LeaderTransfers == 0 {
		fmt.Fprintln(w, "The cluster is balanced: nothing to move.")
		return
	}
	if len(r.Moves) > 0 {
		t := newTable("TOPIC", "PARTITION", "FROM", "TO")
		for _, m := range r.Moves {
			t.row(m.Topic, m.Partition, m.From, m.To)
		}
		t.write(w)
	}
	fmt.Fprintf(w, "%s and %s", count(len(r.Moves), "replica move"), count(int(r.LeaderTransfers), "leader transfer"))
	if r.DryRun {
		fmt.Fprint(w, "; nothing was changed (dry run)")
	}
	fmt.Fprintln(w)
}
