package client_test

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/client/internal/fakebroker"
	"github.com/flotilla-log/flotilla/proto/record/recordtest"
)

func TestAdminTopics(t *testing.T) {
	f, c := connect(t, 2, 2)
	a, ctx := c.Admin(), testContext(t)
	d, err := a.CreateTopic(ctx, client.TopicSpec{Name: "new", Partitions: 3})
	if err != nil || d.Topic != "new" || len(d.Partitions) != 3 {
		t.Fatalf("%+v, %v", d, err)
	}
	_, err = a.CreateTopic(ctx, client.TopicSpec{Name: "new"})
	var e *client.Error
	if !errors.Is(err, client.CodeTopicAlreadyExists) || !errors.As(err, &e) || e.Topic != "new" || e.Retriable {
		t.Errorf("second creation: %v", err)
	}
	if _, err := a.DescribeTopic(ctx, "none"); !errors.Is(err, client.CodeUnknownTopicOrPartition) {
		t.Errorf("unknown topic: %v", err)
	}
	if ts, err := a.ListTopics(ctx, false); err != nil || len(ts) != 2 {
		t.Errorf("%v, %v", ts, err)
	}
	fill(f, 1, 1, 10)
	tp := client.TopicPartition{Topic: "t", Partition: 1}
	if start, err := a.DeleteRecords(ctx, tp, 4); err != nil || start != 4 {
		t.Errorf("log start %d, %v", start, err)
	}
	zero := client.TopicPartition{Topic: "t", Partition: 9}
	got := a.ListOffsets(ctx, map[client.TopicPartition]client.Position{tp: client.AtTime(time.UnixMilli(recordtest.Timestamp + 6)), zero: client.Latest()})
	if o := got[tp]; o.Err != nil || o.Offset != 6 || o.Timestamp.UnixMilli() != recordtest.Timestamp+6 {
		t.Errorf("%+v", o)
	}
	if got[zero].Err == nil {
		t.Error("a partition that is not there has an offset")
	}
	if err := a.DeleteTopic(ctx, "new"); err != nil {
		t.Fatal(err)
	}
	if err := a.DeleteTopic(ctx, "new"); !errors.Is(err, client.CodeUnknownTopicOrPartition) {
		t.Errorf("second deletion: %v", err)
	}
}

func TestAdminGroupOffsets(t *testing.T) {
	f, c := connect(t, 2, 2)
	f.MoveCoordinator(1)
	a, tp := c.Admin(), client.TopicPartition{Topic: "t", Partition: 1}
	if err := a.CommitOffsets(testContext(t), "g", map[client.TopicPartition]client.Commit{tp: {Offset: 5, Metadata: "x"}}); err != nil {
		t.Fatal(err)
	}
	got, err := a.FetchOffsets(testContext(t), "g")
	if err != nil || len(got) != 1 || got[tp].Offset != 5 || got[tp].Metadata != "x" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStatusFromWhicheverBrokerIsLeft(t *testing.T) {
	f, c := connect(t, 3, 1)
	for i := range 2 {
		f.Kill(i)
		for range 5 {
			s, err := c.Admin().Status(testContext(t))
			if err != nil || s.ClusterID != "fake" || len(s.Brokers) != 3 || s.Brokers[0].State != client.BrokerAlive {
				t.Fatalf("%+v, %v", s, err)
			}
		}
	}
	f.Kill(2)
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	if _, err := c.Admin().Status(ctx); !errors.Is(err, client.CodeUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no broker is left: %v", err)
	}
}

// TestSilentBroker: an address that accepts connections and says nothing does not keep a call from the others.
func TestSilentBroker(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := fakebroker.Start(t, 1)
	c, err := client.New(append(f.Addrs(), l.Addr().String(), "127.0.0.1:1"), client.WithRequestTimeout(9*time.Second), client.WithRetryBackoff(time.Millisecond, 10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 6 {
		if err := c.Ping(testContext(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatchMetadata(t *testing.T) {
	f, c := connect(t, 2, 1)
	leaders := []int32{}
	for m, err := range c.WatchMetadata(testContext(t), "t") {
		if err != nil {
			t.Fatal(err)
		}
		leaders = append(leaders, m.Topics[0].Partitions[0].Leader)
		switch len(leaders) {
		case 1:
			f.MoveLeader("t", 0, 1)
			continue
		case 2:
			f.Kill(0)
			f.Kill(1)
			f.Restart(t, 1)
			continue
		}
		break
	}
	if leaders[0] != 0 || leaders[1] != 1 || leaders[2] != 1 {
		t.Errorf("leaders %v", leaders)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	n := 0
	for _, err := range c.WatchMetadata(ctx) {
		n++
		if cancel(); n == 2 && !errors.Is(err, context.Canceled) {
			t.Errorf("after cancel: %v", err)
		}
	}
	if n != 2 {
		t.Errorf("%d rounds", n)
	}
}

func TestClientClosed(t *testing.T) {
	f := fakebroker.Start(t, 1)
	f.CreateTopic("t", 1)
	c, err := client.New(f.Addrs())
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Produce(testContext(t), &client.Record{Topic: "t"}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Produce: %v", err)
	}
	if err := c.Ping(testContext(t)); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Ping: %v", err)
	}
	if err := p.Close(testContext(t)); err != nil {
		t.Error(err)
	}
	if _, err := client.New(nil); err == nil {
		t.Error("a client without brokers")
	}
	if _, err := client.New([]string{"x"}, client.WithRetryBackoff(0, 0)); err == nil {
		t.Error("an impossible option is accepted")
	}
}

func TestCodes(t *testing.T) {
	for code, name := range map[client.Code]string{
		client.CodeNotLeader: "NOT_LEADER", client.CodeInternal: "INTERNAL", client.CodeUnavailable: "UNAVAILABLE", client.CodeInvalidTimestamp: "INVALID_TIMESTAMP",
	} {
		if code.String() != name || code.Error() != name {
			t.Errorf("%d is called %s", code, code)
		}
	}
	err := error(&client.Error{Op: "Produce", Code: client.CodeNotLeader, Message: "no", Topic: "t", Partition: 3, Retriable: true})
	for want, e := range map[string]*client.Error{
		"Fetch t/0: gone (OFFSET_OUT_OF_RANGE)": {Op: "Fetch", Code: client.CodeOffsetOutOfRange, Message: "t/0: gone", Topic: "t"},
		"DeleteTopic t: gone (INTERNAL)":        {Op: "DeleteTopic", Message: "gone", Topic: "t", Partition: -1},
		"Status: gone (INTERNAL)":               {Op: "Status", Message: "gone", Partition: -1},
	} {
		if e.Error() != want {
			t.Errorf("%q, want %q", e.Error(), want)
		}
	}
	if err.Error() != "Produce t/3: no (NOT_LEADER)" || !errors.Is(err, client.CodeNotLeader) || errors.Is(err, client.CodeInternal) || !client.IsRetriable(err) {
		t.Errorf("%v", err)
	}
	if client.CodeOf(errors.New("x")) != client.CodeInternal || client.CodeOf(err) != client.CodeNotLeader {
		t.Error("CodeOf")
	}
}

// TestUnknownTopicIsSaidToBeUnknown: also when the caller's patience is shorter than the client's.
func TestUnknownTopicIsSaidToBeUnknown(t *testing.T) {
	_, c := connect(t, 1, 1)
	if _, err := c.Partitions(testContext(t), "t"); err != nil { // there is a connection now
		t.Fatal(err)
	}
	p := newProducer(t, c, client.WithMaxBlock(200*time.Millisecond))
	ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
	defer cancel()
	_, partitions := c.Partitions(ctx, "none")
	_, appended := p.Append(testContext(t), "none", 0, []*client.Record{{}})
	_, outside := p.Append(testContext(t), "t", 5, []*client.Record{{}})
	for what, err := range map[string]error{
		"Produce":                     p.Produce(testContext(t), &client.Record{Topic: "none"}),
		"Partitions":                  partitions,
		"Append":                      appended,
		"Append outside of the topic": outside,
	} {
		if !errors.Is(err, client.CodeUnknownTopicOrPartition) || errors.Is(err, client.ErrOutcomeUnknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestNegativeOffsetsAreRefused(t *testing.T) {
	_, c := connect(t, 1, 1)
	k := newConsumer(t, c)
	bad, tp := client.AtOffset(-5), client.TopicPartition{Topic: "t"}
	_, reset := c.NewConsumer(client.WithReset(bad))
	if err := k.Assign(at(0, client.Latest())); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"Assign": k.Assign(at(0, bad)), "Seek": k.Seek(tp, bad), "WithReset": reset,
		"ListOffsets": c.Admin().ListOffsets(testContext(t), map[client.TopicPartition]client.Position{tp: bad})[tp].Err,
	} {
		if !errors.Is(err, client.CodeOffsetOutOfRange) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestStaleLeaderIsLookedUpAgain: the topic is known from a call that was not about it in particular, and its leader is gone.
func TestStaleLeaderIsLookedUpAgain(t *testing.T) {
	f, c := connect(t, 3, 1)
	fill(f, 0, 1, 10)
	if _, err := c.Metadata(testContext(t)); err != nil {
		t.Fatal(err)
	}
	f.Kill(0)
	f.MoveLeader("t", 0, 1)
	tp := client.TopicPartition{Topic: "t"}
	if o := c.Admin().ListOffsets(testContext(t), map[client.TopicPartition]client.Position{tp: client.Latest()})[tp]; o.Err != nil || o.Offset != 10 {
		t.Errorf("%+v", o)
	}
}
