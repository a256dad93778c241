package broker

import (
	"context"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// Fetch implements api.Log: one pass over the partitions; if that gives too little and nothing failed, it watches all of them on one
// channel and reads again when one wakes it. The watches are set before the read that decides to wait, so no commit is missed.
func (b *Broker) Fetch(ctx context.Context, req api.FetchRequest) ([]api.FetchResult, error) {
	results, enough := b.fetchNow(req)
	if enough || req.MaxWait <= 0 {
		b.countFetched(results)
		return results, nil
	}
	timer := time.NewTimer(req.MaxWait)
	defer timer.Stop()
	for {
		wake := make(chan struct{}, 1)
		unwatch := b.watchAll(req, results, wake)
		results, enough = b.fetchNow(req)
		more := false
		if !enough {
			select {
			case <-wake:
				more = true
			case <-timer.C:
			case <-ctx.Done():
			case <-b.ctx.Done():
			}
		}
		unwatch()
		if err := ctx.Err(); err != nil {
			return nil, b.apiError(err, nil)
		}
		if !more {
			b.countFetched(results)
			return results, nil
		}
	}
}

// watchAll registers wake with every partition, to be told of anything after what was read.
func (b *Broker) watchAll(req api.FetchRequest, results []api.FetchResult, wake chan<- struct{}) (cancel func()) {
	var cancels []func()
	for i, p := range req.Partitions {
		r, err := b.recordsNow(p.TopicPartition)
		if err != nil {
			signal(wake) // the next read says so
			continue
		}
		cancels = append(cancels, r.Watch(max(p.Offset, results[i].HighWatermark), wake))
	}
	return func() {
		for _, c := range cancels {
			c()
		}
	}
}

// fetchNow reads what is there. enough means that the caller should have it now: MinBytes are reached, or a partition failed.
func (b *Broker) fetchNow(req api.FetchRequest) (results []api.FetchResult, enough bool) {
	results = make([]api.FetchResult, len(req.Partitions))
	left := min(req.MaxBytes, b.cfg.Memory.FetchBytes)
	if req.MaxBytes <= 0 {
		left = b.cfg.Memory.FetchBytes
	}
	total := 0
	for i, p := range req.Partitions {
		// Once something was read, a partition only gives what fits: a batch that is larger comes first in a later fetch.
		var n int
		results[i], n = b.readPartition(p, left, total == 0)
		total, left = total+n, left-n
		enough = enough || results[i].Err != nil
	}
	return results, enough || total >= max(req.MinBytes, 1)
}

func (b *Broker) readPartition(p api.FetchPartition, left int, first bool) (api.FetchResult, int) {
	out := api.FetchResult{TopicPartition: p.TopicPartition, Next: p.Offset}
	r, err := b.recordsNow(p.TopicPartition)
	if err != nil {
		out.Err = err
		return out, 0
	}
	limit := min(left, p.MaxBytes)
	if p.MaxBytes <= 0 {
		limit = left
	}
	if limit <= 0 && !first {
		out.LogStart, out.HighWatermark = r.Bounds()
		_, term := r.Leader()
		out.LeaderEpoch = int32(term)
		return out, 0
	}
	res, err := r.Read(p.Offset, max(limit, 1))
	if err != nil {
		out.Err = b.apiError(err, &p.TopicPartition)
		return out, 0
	}
	out.HighWatermark, out.LogStart, out.LeaderEpoch = res.HighWatermark, res.LogStart, res.LeaderEpoch
	if !first && res.Bytes > left { // one batch larger than what is left of the response
		if res.Release != nil {
			res.Release()
		}
		return out, 0
	}
	out.Batches, out.Next, out.Release = res.Batches, record.Offset(max(res.Next, p.Offset)), res.Release
	return out, res.Bytes
}
