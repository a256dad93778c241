package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/raftlog"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// golden compares with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./cmd/flotilla -update rewrites it):\ngot:\n%s\nwant:\n%s", file, got, want)
	}
}

// TestViews shows what the commands print, as text and as JSON, from what the client returns.
func TestViews(t *testing.T) {
	topic := topicToJSON(&client.TopicDescription{
		Topic: "orders", ID: []byte{0xde, 0xad, 0xbe, 0xef}, ReplicationFactor: 3,
		Settings: []client.TopicSetting{
			{Key: "flush", Value: "quorum", IsDefault: true, Documentation: "when an append is acknowledged"},
			{Key: "retention.ms", Value: "86400000"},
		},
		Partitions: []client.PartitionDescription{
			{Partition: 0, Leader: 2, LeaderEpoch: 7, Replicas: []int32{2, 3, 1}, Voters: []int32{1, 2, 3}, LogStartOffset: 0, HighWatermark: 1234, SizeBytes: 5 << 20},
			{Partition: 1, Leader: -1, LeaderEpoch: 4, Replicas: []int32{3, 1, 2}, LogStartOffset: -1, HighWatermark: -1, SizeBytes: -1},
		},
	})
	group := groupToJSON(&client.GroupDescription{
		Group: "billing", State: "Stable", ProtocolType: "consumer", Protocol: "cooperative-sticky", Generation: 5,
		Coordinator: client.Broker{ID: 2, Address: "10.0.0.2:7070"},
		Members: []client.GroupMember{{
			MemberID: "flotilla-cli-1", InstanceID: "till-1", ClientID: "flotilla-cli", ClientHost: "10.0.0.9", SessionTimeout: 45 * time.Second, Topics: []string{"orders", "users"},
			Assignment: []client.TopicPartition{{Topic: "orders", Partition: 0}, {Topic: "orders", Partition: 2}, {Topic: "users", Partition: 1}},
		}},
		Offsets: []client.GroupOffset{
			{TopicPartition: client.TopicPartition{Topic: "orders", Partition: 0}, CommittedOffset: 90, LogStartOffset: 0, HighWatermark: 100, Lag: 10, MemberID: "flotilla-cli-1", CommitTime: time.UnixMilli(1700000000000)},
			{TopicPartition: client.TopicPartition{Topic: "orders", Partition: 1}, CommittedOffset: -1, LogStartOffset: -1, HighWatermark: -1, Lag: -1},
		},
	})
	empty := groupToJSON(&client.GroupDescription{Group: "new", State: "Empty", Coordinator: client.Broker{ID: -1}})
	cluster := clusterToJSON(&client.ClusterStatus{
		ClusterID: "c-1", Controller: 1, BrokerID: 3, Version: "0.1.0", Topics: 2, Partitions: 24,
		Brokers: []client.BrokerStatus{
			{ID: 1, GRPCAddress: "a:7070", PeerAddress: "a:7071", GossipAddress: "a:7072", Rack: "r1", Version: "0.1.0", State: client.BrokerAlive, Replicas: 24, Leaders: 13, Controller: true, MetadataVoter: true,
				KafkaListeners: []client.KafkaListener{{Name: "PLAINTEXT", Address: "a:9092"}}},
			{ID: 2, GRPCAddress: "b:7070", PeerAddress: "b:7071", GossipAddress: "b:7072", State: client.BrokerFailed, Replicas: 24,
				KafkaListeners: []client.KafkaListener{{Name: "OUTSIDE", Address: "x:9094"}, {Name: "PLAINTEXT", Address: "b:9092"}}},
		},
		Problems: []client.PartitionProblem{{TopicPartition: client.TopicPartition{Topic: "orders", Partition: 4}, Problem: "1 of 3 replicas on failed broker 2"}},
	})
	clients := clientsToJSON(&client.ClientList{
		Clients: []client.ClientGroup{
			{Broker: 1, Listener: "PLAINTEXT", Host: "10.0.0.9", ClientID: "till-1", Software: "apache-kafka-java", SoftwareVersion: "4.1.0", Connections: 2, Since: time.UnixMilli(1700000000000).UTC()},
			{Broker: 2, Listener: "OUTSIDE", Host: "::1", Connections: 1, Since: time.UnixMilli(1700000001000).UTC()},
		},
		MissingBrokers: []int32{3}, OmittedConnections: 7,
	})
	plan := &rebalanceJSON{DryRun: true, Moves: []moveJSON{{Topic: "orders", Partition: 3, From: 1, To: 4}}, LeaderTransfers: 2}
	report := sampleReport()
	bench := &benchReport{
		Benchmark: "latency", Protocol: "kafka", Topic: "flotilla-bench", Records: 10000, Bytes: 10240000, Seconds: 10, RecordsPerSecond: 1000, BytesPerSecond: 1024000, TargetRate: 1000,
		Ack:      &latencySummary{Count: 10000, MeanMs: 1.5, P50Ms: 1.2, P90Ms: 2, P99Ms: 4.25, P999Ms: 9, MaxMs: 12},
		EndToEnd: &latencySummary{Count: 10000, MeanMs: 1.7, P50Ms: 1.4, P90Ms: 2.2, P99Ms: 5, P999Ms: 9.5, MaxMs: 13},
		Brokers:  &brokerCost{PIDs: []int{10, 11, 12}, WrittenBytes: 32000000, CPUSeconds: 1.25, RSSBytes: 96 << 20},
	}
	bench.finishCost(3, 10500000)
	for _, c := range []struct {
		name string
		v    any
		text func(w io.Writer)
	}{
		{"topic", topic, func(w io.Writer) { writeTopic(w, topic) }},
		{"topics", nil, func(w io.Writer) {
			writeTopicList(w, []topicSummaryJSON{{Topic: "orders", Partitions: 12, ReplicationFactor: 3}, {Topic: "users", Partitions: 1, ReplicationFactor: 1}})
		}},
		{"group", group, func(w io.Writer) { writeGroup(w, group) }},
		{"group-empty", empty, func(w io.Writer) { writeGroup(w, empty) }},
		{"groups", nil, func(w io.Writer) {
			writeGroupList(w, []groupSummaryJSON{{Group: "billing", State: "Stable", Members: 2, Coordinator: 3}, {Group: "old", State: "Empty", Coordinator: -1}})
		}},
		{"resets", nil, func(w io.Writer) {
			writeResets(w, []offsetResetJSON{{"orders", 0, 90, 0}, {"orders", 1, -1, 0}}, false)
		}},
		{"cluster", cluster, func(w io.Writer) { writeCluster(w, cluster) }},
		{"clients", clients, func(w io.Writer) { writeClients(w, clients) }},
		{"rebalance", plan, func(w io.Writer) { writeRebalance(w, plan) }},
		{"log-dump", nil, func(w io.Writer) { writeLogReport(w, report) }},
		{"log-verify", nil, func(w io.Writer) { writeVerdict(w, report) }},
		{"log-entries", nil, writeSampleEntries},
		{"bench", bench, func(w io.Writer) { writeBenchReport(w, bench) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{stdout: &out, output: outputText}
			if err := a.emit(c.v, c.text); err != nil {
				t.Fatal(err)
			}
			if c.v != nil {
				out.WriteString("----\n")
				a.output = outputJSON
				if err := a.emit(c.v, c.text); err != nil {
					t.Fatal(err)
				}
			}
			golden(t, c.name+".txt", out.Bytes())
		})
	}
}

func sampleReport() *raftlog.Report {
	return &raftlog.Report{
		Dir: "/data/partitions/orders-0.17", FirstIndex: 100, LastIndex: 250, FirstOffset: 1000, NextOffset: 2400, Entries: 151, Batches: 140, Records: 1400,
		Segments: []raftlog.SegmentReport{
			{File: "00000000000000000100.log", FirstIndex: 100, LastIndex: 200, BaseOffset: 1000, NextOffset: 2000, Bytes: 128 << 20, Sealed: true, CreatedAt: time.UnixMilli(1700000000000), Index: "ok"},
			{File: "00000000000000000201.log", FirstIndex: 201, LastIndex: 250, BaseOffset: 2000, NextOffset: 2400, Bytes: 3 << 20, CreatedAt: time.UnixMilli(1700000100000), Index: "missing"},
		},
		Checkpoints: []raftlog.CheckpointReport{{File: "00000000000000000200.ckpt", Index: 200, Term: 3, NextOffset: 2000, StateBytes: 512, Servers: []string{"1-a-0 1 Voter", "2-b-0 2 Voter"}}},
		TornTail:    &raftlog.TornTail{File: "00000000000000000201.log", Position: 4096, Bytes: 17, Reason: "the frame's checksum does not match"},
		Damage:      []raftlog.DamageInfo{{File: "00000000000000000100.log", Position: 8192, Reason: "the frame's checksum does not match"}},
	}
}

func writeSampleEntries(w io.Writer) {
	key, value := "ada", "1"
	for _, e := range []dumpedEntry{
		{EntryInfo: raftlog.EntryInfo{File: "x/00000000000000000201.log", Position: 64, Index: 201, Term: 3, Kind: raftlog.KindNoop}},
		{
			EntryInfo: raftlog.EntryInfo{File: "x/00000000000000000201.log", Position: 128, Index: 202, Term: 3, Kind: raftlog.KindBatch, Bytes: 300, Batch: &raftlog.BatchInfo{
				BaseOffset: 2000, LastOffset: 2001, Records: 2, Accepted: true, Compression: "zstd", LeaderEpoch: 3, ProducerID: 9, BaseSequence: 40,
			}},
			Records: []consumedJSON{{Offset: 2000, Timestamp: "2023-11-14T22:13:20.123Z", Key: &key, Value: &value}, {Offset: 2001, Timestamp: "-", KeyBase64: []byte{0xff}}},
		},
		{EntryInfo: raftlog.EntryInfo{File: "x/00000000000000000201.log", Position: 500, Index: 203, Term: 4, Kind: raftlog.KindBatch, Batch: &raftlog.BatchInfo{
			BaseOffset: 2000, LastOffset: 2000, Compression: "none", LeaderEpoch: 4, ProducerID: -1,
		}}},
	} {
		writeEntry(w, &e)
	}
}

func TestHealthy(t *testing.T) {
	well := clusterJSON{Controller: 1, Brokers: []brokerJSON{{State: "alive"}, {State: "drained"}}}
	if !well.healthy() {
		t.Error("a sound cluster is not healthy")
	}
	for name, sick := range map[string]clusterJSON{
		"no controller": {Controller: -1},
		"failed broker": {Controller: 1, Brokers: []brokerJSON{{State: "failed"}}},
		"left broker":   {Controller: 1, Brokers: []brokerJSON{{State: "left"}}},
		"problem":       {Controller: 1, Problems: []partitionIssue{{}}},
	} {
		if sick.healthy() {
			t.Errorf("%s: healthy", name)
		}
	}
}
