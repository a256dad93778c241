package kafka

import (
	"context"
	"encoding/binary"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// taken is how much of the memory for requests is in use, to within a quarter of a MiB.
func taken(s *Server) int64 {
	const step = 1 << 18
	for n := int64(0); n < s.opts.MaxRequestBytes; n += step {
		if free := s.opts.MaxRequestBytes - n; s.memory.TryAcquire(free) {
			s.memory.Release(free)
			return n
		}
	}
	return s.opts.MaxRequestBytes
}

// Room for a request is made as its bytes arrive, not when its size is announced; and none is left when the client has gone.
func TestRequestsTakeMemoryAsTheyArrive(t *testing.T) {
	s, addr := serve(t, newFake(), Options{})
	announce := binary.BigEndian.AppendUint32(nil, 32<<20)
	announce = append(announce, encode(produceRequest(9, -1, 0, nil), 1)[4:12]...)
	var all []*wire
	for range 8 {
		w := dial(t, addr)
		w.write(announce)
		all = append(all, w)
	}
	eventually(t, func() bool { return taken(s) >= 8<<20 }) // a MiB each
	if n := taken(s); n > 9<<20 {
		t.Errorf("%d bytes are taken by 8 connections that have sent no body", n)
	}
	all[0].write(make([]byte, 5<<20))
	eventually(t, func() bool { return taken(s) > 14<<20 })
	if n := taken(s); n > 16<<20 {
		t.Errorf("%d bytes are taken after 5 MiB were sent", n)
	}
	for _, w := range all {
		_ = w.conn.Close()
	}
	eventually(t, func() bool { return taken(s) == 0 })
}

// Each API has a limit of its own, and is cut off before its body is read.
func TestRequestSizeLimits(t *testing.T) {
	_, addr := serve(t, newFake(), Options{MaxMessageBytes: 4 << 20})
	for key, limit := range map[int16]int32{keyProduce: 5 << 20, keyJoinGroup: 8 << 20, keySyncGroup: 8 << 20, 3: 2 << 20, keyFetch: 2 << 20, 19: 2 << 20} {
		w := dial(t, addr)
		b := binary.BigEndian.AppendUint32(nil, uint32(limit+1))
		b = binary.BigEndian.AppendUint16(b, uint16(key))
		w.write(append(b, 0, 3, 0, 0, 0, 1))
		w.closed()
	}
}

// What one connection sends and has not been answered is bounded: beyond it the broker stops reading.
func TestMemoryOfOneConnection(t *testing.T) {
	f := newFake()
	held := make(chan struct{})
	f.hold[0] = held
	s, addr := serve(t, f, Options{MaxMessageBytes: 2 << 20})
	w := dial(t, addr)
	const requests = 14
	frame := encode(produceRequest(9, -1, 0, batch(t, strings.Repeat("x", 1<<20))), 0)
	go func() {
		for range requests {
			if _, err := w.conn.Write(frame); err != nil {
				return
			}
		}
	}()
	eventually(t, func() bool { return taken(s) > 7<<20 })
	other := dial(t, addr)
	for range 20 { // time goes by for the others
		ask[*kmsg.MetadataResponse](other, kmsg.NewPtrMetadataRequest())
	}
	if n := taken(s); n > groupRequestMax+1<<20 {
		t.Errorf("one connection takes %d bytes", n)
	}
	close(held)
	for range requests {
		w.receive(produceRequest(9, -1, 0, nil), 0)
	}
	eventually(t, func() bool { return taken(s) == 0 })
}

func largeLog(t *testing.T, f *fakeBroker) *kmsg.FetchRequest {
	t.Helper()
	for range 40 {
		tp := api.TopicPartition{Topic: "orders"}
		if _, err := f.Append(context.Background(), api.AppendRequest{TopicPartition: tp, Batch: batch(t, strings.Repeat("x", 1<<20))}); err != nil {
			t.Fatal(err)
		}
	}
	req := fetchRequest(12, 0, 0, 0)
	req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 32<<20, 32<<20
	return req
}

// Clients that do not take their answers hold up nobody else, neither their own memory of requests nor a consumer that finds the memory for
// responses taken: that one gets its records when there is room.
func TestSlowReadersHoldUpNobody(t *testing.T) {
	f := newFake()
	req := largeLog(t, f)
	s, addr := serve(t, f, Options{MaxResponseBytes: 70 << 20})
	var slow []*wire
	for range 2 {
		w := dial(t, addr)
		_ = w.conn.(*net.TCPConn).SetReadBuffer(4096)
		w.send(req, 1)
		slow = append(slow, w)
	}
	eventually(t, func() bool {
		if s.responses.TryAcquire(10 << 20) {
			s.responses.Release(10 << 20)
			return false
		}
		return true
	})
	if n := taken(s); n != 0 {
		t.Errorf("%d bytes of requests are held by those who do not read", n)
	}
	other := dial(t, addr)
	ask[*kmsg.ProduceResponse](other, produceRequest(9, -1, 1, batch(t, "a")))
	ask[*kmsg.FetchResponse](other, fetchRequest(12, 1, 0, 0)) // a small one finds room
	other.send(req, 5)
	_ = slow[0].conn.Close()
	if got := len(other.receive(req, 5).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches); got < 31<<20 {
		t.Errorf("%d bytes were fetched", got)
	}
	_ = slow[1].conn.Close()
	eventually(t, func() bool {
		if s.responses.TryAcquire(70 << 20) {
			s.responses.Release(70 << 20)
			return true
		}
		return false
	})
}

// Where there is no room for a response for too long, it has no records, and the client tries again.
func TestNoMemoryForAResponse(t *testing.T) {
	f := newFake()
	req := largeLog(t, f)
	s, addr := serve(t, f, Options{MaxResponseBytes: 33 << 20, StallTimeout: 100 * time.Millisecond})
	if !s.responses.TryAcquire(33 << 20) {
		t.Fatal("the memory is taken already")
	}
	resp := ask[*kmsg.FetchResponse](dial(t, addr), req)
	if p := resp.Topics[0].Partitions[0]; resp.ErrorCode != 0 || p.ErrorCode != 0 || len(p.RecordBatches) != 0 || p.HighWatermark != 40 {
		t.Errorf("error %d, partition error %d, %d bytes, high watermark %d", resp.ErrorCode, p.ErrorCode, len(p.RecordBatches), p.HighWatermark)
	}
	s.responses.Release(33 << 20)
}

// A connection that ends because of what it sent leaves one line in the log; one that the client closes, none.
func TestOneLineForAMalformedRequest(t *testing.T) {
	var log lockedBuffer
	s, addr := serve(t, newFake(), Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
	polite := dial(t, addr)
	ask[*kmsg.MetadataResponse](polite, kmsg.NewPtrMetadataRequest())
	_ = polite.conn.Close()
	w := dial(t, addr)
	w.write([]byte{0, 0, 0, 12, 0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 1, 2})
	w.write(encode(kmsg.NewPtrMetadataRequest(), 2)) // what comes after it is not looked at
	w.closed()
	eventually(t, func() bool { return len(s.Clients()) == 0 })
	if got := strings.Count(log.String(), "\n"); got != 1 || !strings.Contains(log.String(), w.conn.LocalAddr().String()) {
		t.Errorf("the log has %d lines: %s", got, log.String())
	}
}
