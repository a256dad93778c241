package broker_test

import (
	"fmt"
	"testing"

	"github.com/flotilla-log/flotilla/broker/brokertest"
)

func TestThreeBrokersProduceAndFetch(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("orders", 3, 3)
	for i := range 30 {
		c.Produce("orders", int32(i%3), fmt.Sprint("v", i))
	}
	for p := range int32(3) {
		if got := c.ReadAll("orders", p); len(got) != 10 || string(got[9].Value) != fmt.Sprint("v", 27+p) {
			t.Errorf("partition %d: %d records, the last is %v", p, len(got), got[len(got)-1])
		}
		c.WaitReplicated("orders", p, 1, 2, 3)
		c.EnsureSame("orders", p)
	}
}
