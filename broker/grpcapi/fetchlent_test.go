package grpcapi

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// lender reads from a fake broker into memory that it uses again, and spoils, as soon as it is given back.
type lender struct {
	*fakeBroker
	pool              sync.Pool
	lent, reused, out atomic.Int64
}

func (l *lender) Fetch(ctx context.Context, req api.FetchRequest) ([]api.FetchResult, error) {
	results, err := l.fakeBroker.Fetch(ctx, req)
	for i := range results {
		if len(results[i].Batches) > 0 {
			l.lend(&results[i])
		}
	}
	return results, err
}

func (l *lender) lend(r *api.FetchResult) {
	n := sizeOf(r.Batches)
	var buf []byte
	if used, _ := l.pool.Get().(*[]byte); used != nil && cap(*used) >= n {
		buf = (*used)[:0]
		l.reused.Add(1)
	} else {
		buf = make([]byte, 0, 2*n)
	}
	for i, b := range r.Batches {
		at := len(buf)
		buf = append(buf, b...)
		r.Batches[i] = buf[at:]
	}
	l.lent.Add(1)
	l.out.Add(1)
	r.Release = func() {
		l.out.Add(-1)
		buf = buf[:cap(buf)]
		for n := copy(buf, "\xDB"); n < len(buf); n *= 2 {
			copy(buf[n:], buf[:n])
		}
		l.pool.Put(&buf)
	}
}

// TestLentBatchesArriveWhole: gRPC has read all of a batch before its memory is given back, whether the client reads fast, slowly, or goes away in the middle; and it is given back.
func TestLentBatchesArriveWhole(t *testing.T) {
	const batches = 24
	f := &lender{fakeBroker: newFake(tp("t", 0))}
	var want []byte
	for i := range batches {
		b := batchOf(t, 0, string(bytes.Repeat([]byte{byte('a' + i%26)}, 100_000)))
		if _, err := f.Append(context.Background(), api.AppendRequest{TopicPartition: tp("t", 0), Batch: b}); err != nil {
			t.Fatal(err)
		}
		want = append(want, b...) // stamped
	}
	_, conn := serve(t, f, Options{})
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			stream, err := pb.NewLogClient(conn).Fetch(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			credit := int64(1+g*g) * 200_000
			if err := stream.Send(&pb.FetchRequest{CreditBytes: credit, Add: []*pb.FetchPartition{{Topic: "t", MaxBytes: 1 << 20}}}); err != nil {
				t.Error(err)
				return
			}
			for got := []byte(nil); len(got) < len(want); {
				m, err := stream.Recv()
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, m.Partitions[0].Batches...)
				if !bytes.Equal(got, want[:len(got)]) {
					t.Errorf("client %d: the first %d bytes are not those that were stored", g, len(got))
					return
				}
				if g%3 == 2 && len(got) > len(want)/2 {
					return // with something on its way
				}
				if err := stream.Send(&pb.FetchRequest{CreditBytes: credit}); err != nil {
					_, err = stream.Recv() // which says why
					t.Errorf("client %d after %d of %d bytes: %v", g, len(got), len(want), err)
					return
				}
			}
		})
	}
	wg.Wait()
	if f.reused.Load() == 0 {
		t.Errorf("of %d reads none got memory that had been given back", f.lent.Load())
	}
	if f.out.Load() > f.lent.Load()/2 {
		t.Errorf("of %d reads %d never gave their memory back", f.lent.Load(), f.out.Load())
	}
}
