package grpcapi

import (
	"context"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// undecided is a broker whose appends have no outcome until end is closed, whatever becomes of their context: as a partition without a quorum.
type undecided struct {
	*fakeBroker
	taken chan struct{}
	end   chan struct{}
}

func (u *undecided) AppendAsync(_ context.Context, _ api.AppendRequest, done func(api.AppendResult, error)) {
	u.taken <- struct{}{}
	go func() {
		<-u.end
		done(api.AppendResult{}, context.Canceled)
	}()
}

// TestStopWithoutOutcomes: a server that ends does not wait for appends that have no outcome yet.
func TestStopWithoutOutcomes(t *testing.T) {
	u := &undecided{fakeBroker: newFake(tp("t", 0)), taken: make(chan struct{}), end: make(chan struct{})}
	s, conn := serve(t, u, Options{})
	stream, err := pb.NewLogClient(conn).ProduceStream(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, 1, "v")}}); err != nil {
		t.Fatal(err)
	}
	<-u.taken
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.Stop(ctx)
	}()
	select {
	case <-stopped:
	case <-time.After(20 * time.Second):
		t.Error("the server waits for an append that has no outcome")
	}
	close(u.end)
	<-stopped
}
