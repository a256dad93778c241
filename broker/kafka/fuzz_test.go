package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/kafka/kafkafuzz"
)

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0, 18, 0, 3, 0, 0, 0, 1, 0, 1, 'a', 0}, true)
	f.Add([]byte{0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff}, false)
	f.Add([]byte{0, 3, 0, 12, 0, 0, 0, 1, 0xff, 0xff, 2, 0, 1, 'x', 1, 0}, true)
	f.Fuzz(func(t *testing.T, b []byte, flexible bool) {
		h, rest, err := parseFixed(b)
		if err != nil {
			if !errors.Is(err, errMalformed) || len(b) >= fixedHeader {
				t.Fatalf("%x: %v", b, err)
			}
			return
		}
		body, err := h.parseClient(rest, flexible)
		switch {
		case err != nil && !errors.Is(err, errMalformed):
			t.Fatalf("%x: %v", b, err)
		case err == nil && (len(body) > len(rest)-2 || !bytes.HasSuffix(rest, body) || len(h.clientID) > clientIDMax):
			t.Fatalf("%x: body %x, client %q", b, body, h.clientID)
		}
	})
}

// FuzzRequest sends a request with any body through the server, as it is in production, to a broker that is not. It is answered, with what a client can read, or
// its connection is closed; and the server goes on.
func FuzzRequest(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for key, e := range apis {
		for v := e.min; v <= e.max; v++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(v)
			f.Add(key, v, body(req))
			kafkafuzz.Fill(req, r)
			f.Add(key, v, body(req))
		}
	}
	f.Add(keyAPIs, int16(99), []byte{0xff})
	f.Add(int16(999), int16(0), []byte{0, 0})
	s := New(newFake(), Options{Self: 1, MaxMessageBytes: 1 << 20, AppendTimeout: time.Second})
	f.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Stop(ctx)
	})
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		client, server := net.Pipe()
		s.admit(api.DefaultKafkaListener, server)
		frame := binary.BigEndian.AppendUint32(nil, uint32(fixedHeader+len(body)))
		frame = binary.BigEndian.AppendUint16(frame, uint16(key))
		frame = binary.BigEndian.AppendUint16(frame, uint16(version))
		frame = append(binary.BigEndian.AppendUint32(frame, 77), body...)
		_ = client.SetDeadline(time.Now().Add(time.Minute))
		if _, err := client.Write(frame); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			t.Fatalf("the request was not taken: %v", err)
		}
		patience := time.Minute
		if mayWait(key) {
			patience = 20 * time.Millisecond // it may be a long poll
		}
		_ = client.SetReadDeadline(time.Now().Add(patience))
		answer, err := (&wire{t, client}).frame()
		if err == nil {
			checkAnswer(t, key, version, answer)
		} else if errors.Is(err, os.ErrDeadlineExceeded) && !mayWait(key) {
			t.Fatalf("%s version %d: neither answered nor closed", kmsg.NameForKey(key), version)
		}
		_ = client.Close()
	})
}

// mayWait says that a request may take its time, or has no answer (Produce with acks=0).
func mayWait(key int16) bool { return apis[key].waits || key == keyProduce }

func checkAnswer(t *testing.T, key, version int16, b []byte) {
	t.Helper()
	if len(b) < 4 || binary.BigEndian.Uint32(b) != 77 {
		t.Fatalf("%s version %d: an answer to something else: %x", kmsg.NameForKey(key), version, b)
	}
	resp := kmsg.ResponseForKey(key)
	if key == keyAPIs && version > apis[key].max {
		version = 0
	}
	resp.SetVersion(version)
	b = b[4:]
	if resp.IsFlexible() && key != keyAPIs {
		if len(b) == 0 || b[0] != 0 {
			t.Fatalf("%s version %d: the header has no tags: %x", kmsg.NameForKey(key), version, b)
		}
		b = b[1:]
	}
	if err := resp.ReadFrom(b); err != nil {
		t.Fatalf("%s version %d: the answer cannot be read: %v", kmsg.NameForKey(key), version, err)
	}
}

// body is a request without its size and the fixed part of its header.
func body(req kmsg.Request) []byte { return encode(req, 77)[4+fixedHeader:] }
