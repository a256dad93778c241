package broker

import (
	"context"
	"sync"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// reporter tells the metadata what the leaders on this broker see, many partitions in one command. A report that cannot be
// delivered is dropped: the leader compares with the metadata and posts it again. So nothing queues up beyond one report per partition.
type reporter struct {
	b       *Broker
	mu      sync.Mutex
	pending map[api.TopicPartition]metadata.PartitionReport
	wake    chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	done    chan struct{}
}

const (
	// reportDelay gathers the reports of an election's many partitions into one command.
	reportDelay = 10 * time.Millisecond
	reportBatch = 1000
)

func newReporter(b *Broker) *reporter {
	r := &reporter{b: b, pending: map[api.TopicPartition]metadata.PartitionReport{}, wake: make(chan struct{}, 1), done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

func (r *reporter) start() { go r.run() }

func (r *reporter) close() {
	r.cancel()
	<-r.done
}

// post queues a report in place of an older one of the same partition. One without voters does not replace one of the same term that has them.
func (r *reporter) post(p metadata.PartitionReport) {
	r.mu.Lock()
	old, ok := r.pending[p.TP]
	if !ok || p.Voters != nil || old.Epoch < p.Epoch {
		r.pending[p.TP] = p
	}
	r.mu.Unlock()
	signal(r.wake)
}

func (r *reporter) take() []metadata.PartitionReport {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []metadata.PartitionReport
	for tp, p := range r.pending {
		if len(out) == reportBatch {
			signal(r.wake)
			break
		}
		out = append(out, p)
		delete(r.pending, tp)
	}
	return out
}

func (r *reporter) run() {
	defer close(r.done)
	delay := time.NewTimer(0)
	defer delay.Stop()
	for {
		select {
		case <-r.wake:
		case <-r.ctx.Done():
			return
		}
		delay.Reset(reportDelay)
		select {
		case <-delay.C:
		case <-r.ctx.Done():
			return
		}
		if batch := r.take(); len(batch) > 0 {
			r.send(batch)
		}
	}
}

func (r *reporter) send(batch []metadata.PartitionReport) {
	ctx, cancel := context.WithTimeout(r.ctx, r.b.cfg.Timing.CallTimeout)
	defer cancel()
	if _, err := r.b.node.Propose(ctx, &metadata.Report{Partitions: batch}); err != nil && r.ctx.Err() == nil {
		r.b.log.Debug("reporting leaders and voters", "partitions", len(batch), "error", err)
	}
}
