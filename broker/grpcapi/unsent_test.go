package grpcapi

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

const (
	unsentBatches    = 40
	unsentBatchBytes = 256 << 10
	unsentLimit      = 4 << 20
)

// serveUnsent serves a topic with 10 MiB on loopback, with room for 4 of it in responses.
func serveUnsent(t *testing.T, stall time.Duration) (s *Server, addr string) {
	t.Helper()
	f := newFake(tp("t", 0))
	for range unsentBatches {
		b, err := encodeRecords(&pb.Records{Records: []*pb.Record{{Value: []byte(strings.Repeat("x", unsentBatchBytes))}}}, time.Now(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Append(t.Context(), appendOf(b)); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s = New(f, Options{MaxFetchBytes: 1 << 20, MaxUnsentBytes: unsentLimit, StallTimeout: stall})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Stop(ctx)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// fetchAll opens a stream for all of the topic.
func fetchAll(ctx context.Context, t *testing.T, addr string) (pb.Log_FetchClient, *grpc.ClientConn) {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := pb.NewLogClient(conn).Fetch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&pb.FetchRequest{CreditBytes: 1 << 40, Add: []*pb.FetchPartition{{Topic: "t", MaxBytes: 1 << 30}}})
	if err != nil {
		t.Fatal(err)
	}
	return stream, conn
}

// hoard opens streams whose clients read nothing, until their responses have all the room that there is.
func hoard(ctx context.Context, t *testing.T, s *Server, addr string) (streams []pb.Log_FetchClient, conns []*grpc.ClientConn) {
	t.Helper()
	for range 12 {
		stream, conn := fetchAll(ctx, t, addr)
		streams, conns = append(streams, stream), append(conns, conn)
	}
	poll(t, "the room is taken", func() bool { return s.unsent.wait(1<<20) != nil })
	return streams, conns
}

func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
		<-tick.C
	}
}

func usedBy(u *unsent) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.used
}

// readAllBatches reads a stream until the whole topic has come.
func readAllBatches(t *testing.T, s *Server, stream pb.Log_FetchClient) {
	t.Helper()
	for n := 0; n < unsentBatches*unsentBatchBytes; {
		m, err := stream.Recv()
		if err != nil {
			t.Errorf("after %d bytes: %v", n, err)
			return
		}
		for _, p := range m.GetPartitions() {
			n += len(p.GetBatches())
		}
		if used := usedBy(s.unsent); used > unsentLimit {
			t.Errorf("%d bytes are counted, of %d", used, unsentLimit)
		}
	}
}

// Clients that do not read have all the room. Others wait and do not fail: they go on once the first ones let go.
func TestUnsentWaits(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, addr := serveUnsent(t, time.Hour)
	_, conns := hoard(ctx, t, s, addr)
	stream, _ := fetchAll(ctx, t, addr)
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	read := make(chan error, 1)
	go func() {
		r, err := pb.NewLogClient(conn).Read(ctx, &pb.ReadRequest{Topic: "t", MaxBytes: 1 << 20})
		if err == nil && len(r.GetData().GetBatches()) < unsentBatchBytes {
			t.Errorf("a read gave %d bytes", len(r.GetData().GetBatches()))
		}
		read <- err
	}()
	select {
	case err := <-read:
		t.Errorf("a read did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if used := usedBy(s.unsent); used > unsentLimit {
		t.Errorf("%d bytes are counted, of %d", used, unsentLimit)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	readAllBatches(t, s, stream)
	if err := <-read; err != nil {
		t.Error(err)
	}
	poll(t, "nothing is counted any more", func() bool { return usedBy(s.unsent) == 0 })
}

// Clients that read nothing for too long while others wait lose their connections; nobody else does.
func TestUnsentHangsUp(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	s, addr := serveUnsent(t, 3*time.Second)
	streams, _ := hoard(ctx, t, s, addr)
	stream, _ := fetchAll(ctx, t, addr)
	readAllBatches(t, s, stream)
	ended := 0
	for _, h := range streams {
		for n := 0; n < unsentBatches*unsentBatchBytes; {
			m, err := h.Recv()
			if err != nil {
				ended++
				break
			}
			for _, p := range m.GetPartitions() {
				n += len(p.GetBatches())
			}
		}
	}
	if ended == 0 {
		t.Error("nobody was hung up on")
	}
	if s.Connections() == 0 {
		t.Error("the one that read has no connection any more")
	}
	poll(t, "nothing is counted any more", func() bool { return usedBy(s.unsent) == 0 })
}

func appendOf(b []byte) api.AppendRequest {
	return api.AppendRequest{TopicPartition: tp("t", 0), Batch: b}
}
