package client_test

import (
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// TestProducerAfterItsTopicWasForgotten: a producer, and a consumer, that were silent for longer than topics are remembered go on as if nothing had been.
func TestProducerAfterItsTopicWasForgotten(t *testing.T) {
	_, c := connect(t, 2, 2, client.WithMetadataMaxAge(10*time.Millisecond), client.WithMetadataMaxIdle(30*time.Millisecond))
	ctx := testContext(t)
	p, err := c.NewProducer()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	k, err := c.NewConsumer()
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.AssignTopic(ctx, "t", client.Earliest()); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		if err := p.Produce(ctx, &client.Record{Topic: "t", Value: []byte{byte(n)}}); err != nil {
			t.Fatal(err)
		}
		rs, err := k.Poll(ctx)
		if err != nil || len(rs) != 1 || rs[0].Value[0] != byte(n) {
			t.Fatalf("%d: %v, %v", n, rs, err)
		}
		<-time.After(150 * time.Millisecond) // of silence
	}
}
