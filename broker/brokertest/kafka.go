package brokertest

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// AskKafka sends one request to a broker's Kafka listener, over a connection of its own, and returns the response. The request's version must be set.
// Any goroutine may call TryKafka.
func AskKafka[R kmsg.Response](c *Cluster, id api.BrokerID, req kmsg.Request) R {
	c.T.Helper()
	resp, err := c.TryKafka(id, req)
	if err != nil {
		c.T.Fatalf("%s version %d to broker %d: %v", kmsg.NameForKey(req.Key()), req.GetVersion(), id, err)
	}
	return resp.(R)
}

// TryKafka is AskKafka with the error returned.
func (c *Cluster) TryKafka(id api.BrokerID, req kmsg.Request) (kmsg.Response, error) {
	c.mu.Lock()
	addr := c.nodes[id].cfg.KafkaAddr
	c.mu.Unlock()
	return TryKafkaAt(addr, req)
}

// TryKafkaAt is TryKafka for a listener by its address.
func TryKafkaAt(addr string, req kmsg.Request) (kmsg.Response, error) {
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * Patience))
	if _, err := conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("brokertest")).AppendRequest(nil, req, 1)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < 4 || n > 64<<20 {
		return nil, fmt.Errorf("a response of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(conn, body); err != nil {
		return nil, err
	}
	body = body[4:] // the correlation ID of the only request
	resp := req.ResponseKind()
	if resp.IsFlexible() && req.Key() != 18 {
		if len(body) == 0 || body[0] != 0 { // brokers send no tags here
			return nil, fmt.Errorf("a response header with tags: %x", body[:min(len(body), 16)])
		}
		body = body[1:]
	}
	return resp, resp.ReadFrom(body)
}
