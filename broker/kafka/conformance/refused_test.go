package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Transactions are not served. A client must hear so, and not wait for a coordinator that never comes.
func TestTransactionsAreRefused(t *testing.T) {
	c := startCluster(t)
	c.createTopic(t, "transactions", 1)
	cl := c.client(t, kgo.TransactionalID("t"), kgo.DefaultProduceTopic("transactions"))
	began := time.Now()
	ctx, cancel := context.WithTimeout(testContext(t), patience)
	defer cancel()
	err := cl.BeginTransaction()
	if err == nil {
		err = cl.ProduceSync(ctx, kgo.StringRecord("x")).FirstErr()
	}
	if err == nil || ctx.Err() != nil {
		t.Errorf("producing in a transaction: %v after %s", err, time.Since(began))
	}
}
