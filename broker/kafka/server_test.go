package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/kafka/layout"
)

// The very bytes of a client that is newer than this broker: ApiVersions 99 with a header that is not known either.
func TestApiVersionsTooNew(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	w.write([]byte{0, 0, 0, 14, 0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa})
	b, err := w.frame()
	if err != nil {
		t.Fatal(err)
	}
	// Correlation ID 5, error 35, so many APIs, the first of which is Produce 0 to 13.
	want := fmt.Sprintf("0000000500230000%04x00000000000d", len(apis))
	if got := hex.EncodeToString(b); !strings.HasPrefix(got, want) || len(b) != 4+2+4+6*len(apis) {
		t.Fatalf("got %s, want it to begin with %s", got, want)
	}
	// The connection goes on.
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 4, "test-client", "1.2"
	if resp := ask[*kmsg.ApiVersionsResponse](w, req); resp.ErrorCode != 0 || len(resp.ApiKeys) != len(apis) {
		t.Fatalf("%+v", resp)
	}
}

func TestClientsAreKnown(t *testing.T) {
	s, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = 3, "test-client", "1.2"
	ask[*kmsg.ApiVersionsResponse](w, req)
	if c := s.Clients(); len(c) != 1 || c[0].Software != "test-client" || c[0].Version != "1.2" || c[0].ID != "test" || c[0].Addr != w.conn.LocalAddr().String() {
		t.Fatalf("%+v", c)
	}
	req.ClientSoftwareName = "no spaces"
	if resp := ask[*kmsg.ApiVersionsResponse](w, req); resp.ErrorCode != errInvalidRequest {
		t.Errorf("a name that is not valid: %d", resp.ErrorCode)
	}
}

// Every API answers an empty request of every version that it says it knows, with a response that can be read.
func TestEveryVersionIsAnswered(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	for key, e := range apis {
		if !layout.Known(key) {
			t.Errorf("%s: its requests are not checked before they are decoded", kmsg.NameForKey(key))
		}
		for v := e.min; v <= e.max; v++ {
			req := kmsg.RequestForKey(key)
			if v > req.MaxVersion() {
				t.Fatalf("%s: version %d is offered, kmsg knows %d", kmsg.NameForKey(key), v, req.MaxVersion())
			}
			req.SetVersion(v)
			if p, ok := req.(*kmsg.ProduceRequest); ok {
				p.Acks = -1
			}
			w := dial(t, addr)
			w.send(req, int32(v))
			w.receive(req, int32(v))
			_ = w.conn.Close()
		}
	}
}

func TestProduceAndFetchInAllVersions(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	offset := int64(0)
	for v := int16(3); v <= 13; v++ {
		resp := ask[*kmsg.ProduceResponse](w, produceRequest(v, -1, 0, batch(t, "a", "b")))
		p := resp.Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.BaseOffset != offset {
			t.Fatalf("produce version %d: %+v", v, p)
		}
		offset += 2
	}
	for v := int16(4); v <= 18; v++ {
		resp := ask[*kmsg.FetchResponse](w, fetchRequest(v, 0, 5, 100))
		p := resp.Topics[0].Partitions[0]
		f.mu.Lock()
		want := bytes.Join(f.logs[0][2:], nil)
		f.mu.Unlock()
		if p.ErrorCode != 0 || p.HighWatermark != offset || !bytes.Equal(p.RecordBatches, want) {
			t.Fatalf("fetch version %d: error %d, high watermark %d, %d bytes instead of %d", v, p.ErrorCode, p.HighWatermark, len(p.RecordBatches), len(want))
		}
	}
}

func TestProduceRefusals(t *testing.T) {
	_, addr := serve(t, newFake(), Options{MaxMessageBytes: 4096})
	w := dial(t, addr)
	good := func() []byte { return batch(t, "a") }
	corrupt := good()
	corrupt[len(corrupt)-1] ^= 1
	old := good()
	old[magicAt] = 1
	for _, c := range []struct {
		what      string
		version   int16
		acks      int16
		partition int32
		records   []byte
		want      int16
	}{
		{"old API", 2, -1, 0, good(), errUnsupportedVersion},
		{"old message format", 7, -1, 0, old, errInvalidRecord},
		{"a flipped bit", 7, -1, 0, corrupt, errCorruptMessage},
		{"a cut batch", 7, -1, 0, good()[:65], errCorruptMessage},
		{"nothing", 7, -1, 0, nil, errInvalidRecord},
		{"two batches", 7, -1, 0, append(good(), good()...), errInvalidRecord},
		{"too large", 7, -1, 0, batch(t, strings.Repeat("x", 5000)), errMessageTooLarge},
		{"acks=2", 7, 2, 0, good(), errInvalidRequiredAcks},
		{"no such partition", 7, -1, 9, good(), errUnknownTopicOrPartition},
	} {
		resp := ask[*kmsg.ProduceResponse](w, produceRequest(c.version, c.acks, c.partition, c.records))
		if got := resp.Topics[0].Partitions[0].ErrorCode; got != c.want {
			t.Errorf("%s: error %d, want %d", c.what, got, c.want)
		}
	}
	req := produceRequest(13, -1, 0, good())
	req.Topics[0].TopicID = [16]byte{9}
	if got := ask[*kmsg.ProduceResponse](w, req).Topics[0].Partitions[0].ErrorCode; got != errUnknownTopicID {
		t.Errorf("an unknown topic ID: %d", got)
	}
}

// Two produce requests are under way at once; the second is done first and answered second.
func TestPipelinedProduceIsAnsweredInOrder(t *testing.T) {
	f := newFake()
	held := make(chan struct{})
	f.hold[0] = held
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	first, second := produceRequest(9, -1, 0, batch(t, "a")), produceRequest(9, 1, 1, batch(t, "b"))
	meta := kmsg.NewPtrMetadataRequest()
	w.send(first, 1)
	w.send(second, 2)
	w.send(meta, 3)
	eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.next[1] == 1 })
	close(held)
	w.receive(first, 1)
	w.receive(second, 2)
	w.receive(meta, 3)
}

func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !ok() {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-deadline:
			t.Fatal("it did not happen within a minute")
		}
	}
}

func TestAcksZero(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	w.send(produceRequest(9, 0, 0, batch(t, "a")), 1)
	meta := kmsg.NewPtrMetadataRequest()
	w.send(meta, 2)
	w.receive(meta, 2) // the first answer there is
	f.mu.Lock()
	if f.next[0] != 1 {
		t.Error("the record was not stored")
	}
	f.mu.Unlock()
	w.send(produceRequest(9, 0, 7, batch(t, "a")), 3)
	w.closed()
}

// Whatever is received whole is carried out, even if the client does not wait.
func TestProduceOfAClientThatHangsUp(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	for i := range 20 {
		w.send(produceRequest(9, 0, 0, batch(t, "a")), int32(i))
	}
	_ = w.conn.Close()
	eventually(t, func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.next[0] == 20 })
}

func TestLongPoll(t *testing.T) {
	f := newFake()
	s, addr := serve(t, f, Options{})
	w := dial(t, addr)
	req := fetchRequest(12, 0, 0, 60_000)
	w.send(req, 1)
	other := dial(t, addr) // which is not held up
	ask[*kmsg.ProduceResponse](other, produceRequest(9, -1, 0, batch(t, "a")))
	if resp := w.receive(req, 1).(*kmsg.FetchResponse); len(resp.Topics[0].Partitions[0].RecordBatches) == 0 {
		t.Error("the fetch returned without the record")
	}
	// A client that hangs up ends its poll.
	w.send(fetchRequest(12, 0, 1, 60_000), 2)
	_ = w.conn.Close()
	eventually(t, func() bool { return len(s.Clients()) == 1 })
}

func TestStopEndsLongPolls(t *testing.T) {
	s, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	w.send(fetchRequest(12, 0, 0, 60_000), 1)
	eventually(t, func() bool { c := s.Clients(); return len(c) == 1 && c[0].ID == "test" })
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s.Stop(ctx)
	if ctx.Err() != nil {
		t.Error("the long poll was waited for")
	}
	w.closed()
}

// What is malformed closes its connection, with a line in the log, and no other.
func TestMalformedInput(t *testing.T) {
	size := func(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	frame := func(b ...byte) []byte { return append(size(int32(len(b))), b...) }
	meta := encode(kmsg.NewPtrMetadataRequest(), 1)
	for what, in := range map[string][]byte{
		"a negative size":            size(-5),
		"no room for a header":       frame(1, 2, 3),
		"a huge size":                append(size(1<<30), 0, 3, 0, 1, 0, 0, 0, 1),
		"TLS":                        {0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3},
		"an unknown API":             frame(0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff),
		"an unknown version":         frame(0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff),
		"a long client ID":           frame(0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff),
		"a cut body":                 frame(0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0),
		"an array without elements":  frame(0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff),
		"bad tags in the header":     frame(0, 3, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff),
		"a produce request of zeros": frame(append([]byte{0, 0, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0}, bytes.Repeat([]byte{0xff}, 64)...)...),
	} {
		t.Run(what, func(t *testing.T) {
			var log lockedBuffer
			s, addr := serve(t, newFake(), Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log})})
			bystander := dial(t, addr)
			w := dial(t, addr)
			w.write(meta)
			w.receive(kmsg.NewPtrMetadataRequest(), 1)
			w.write(in)
			w.closed()
			ask[*kmsg.MetadataResponse](bystander, kmsg.NewPtrMetadataRequest())
			eventually(t, func() bool { return len(s.Clients()) == 1 })
			if !strings.Contains(log.String(), "closing a Kafka connection") {
				t.Errorf("the log says nothing: %s", log.String())
			}
		})
	}
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	_, addr := serve(t, newFake(), Options{IdleTimeout: 700 * time.Millisecond})
	w := dial(t, addr)
	ask[*kmsg.MetadataResponse](w, kmsg.NewPtrMetadataRequest())
	w.closed()
	// One that waits for an answer is not idle.
	w = dial(t, addr)
	req := fetchRequest(12, 0, 0, 1500)
	w.send(req, 1)
	w.receive(req, 1)
}

// A client that stops in the middle of a request is cut off.
func TestStalledRequest(t *testing.T) {
	_, addr := serve(t, newFake(), Options{StallTimeout: 50 * time.Millisecond})
	w := dial(t, addr)
	w.write([]byte{0, 0, 1, 0, 0, 3, 0, 1})
	w.closed()
}

// A client that does not take its answers is cut off, and its memory given back.
func TestClientThatDoesNotRead(t *testing.T) {
	f := newFake()
	for range 40 {
		_, _ = f.Append(context.Background(), api.AppendRequest{TopicPartition: api.TopicPartition{Topic: "orders"}, Batch: batch(t, strings.Repeat("x", 1<<20))})
	}
	s, addr := serve(t, f, Options{StallTimeout: 100 * time.Millisecond})
	w := dial(t, addr)
	_ = w.conn.(*net.TCPConn).SetReadBuffer(4096)
	req := fetchRequest(12, 0, 0, 0)
	req.MaxBytes, req.Topics[0].Partitions[0].PartitionMaxBytes = 32<<20, 32<<20
	w.send(req, 1)
	eventually(t, func() bool { return len(s.Clients()) == 0 })
	if !s.memory.TryAcquire(s.opts.MaxRequestBytes) {
		t.Error("memory was not given back")
	}
}

func TestConnectionLimit(t *testing.T) {
	s, addr := serve(t, newFake(), Options{MaxConnections: 1})
	first := dial(t, addr)
	ask[*kmsg.MetadataResponse](first, kmsg.NewPtrMetadataRequest())
	second := dial(t, addr)
	second.send(kmsg.NewPtrMetadataRequest(), 1)
	if n := len(s.Clients()); n != 1 {
		t.Errorf("%d connections are served", n)
	}
	_ = first.conn.Close()
	second.receive(kmsg.NewPtrMetadataRequest(), 1)
}
