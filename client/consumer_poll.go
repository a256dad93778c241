package client

import (
	"context"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Poll waits until there is something to read, ctx ends or the consumer is closed, and returns records, in order within each partition,
// at most as many as WithMaxPollRecords says. It never returns records and an error.
//
// An error with a Topic concerns that partition; it is reported once, and Poll may be called again for the others. CodeOffsetOutOfRange
// and other errors that are not retriable leave the partition where it is until a Seek.
func (k *Consumer) Poll(ctx context.Context) ([]*Record, error) {
	return k.poll(ctx, nil)
}

// poll is Poll that also returns, with nothing, when interrupt has something to receive.
func (k *Consumer) poll(ctx context.Context, interrupt <-chan struct{}) ([]*Record, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if k.ctx.Err() != nil {
			return nil, ErrClosed
		}
		rs, err := k.gather()
		if len(rs) > 0 || err != nil {
			signal(k.notify) // there may be more, for another Poll
			return rs, err
		}
		select {
		case <-k.notify:
		case <-interrupt:
			return nil, nil
		case <-ctx.Done():
		case <-k.ctx.Done():
		}
	}
}

// gather takes what is there, partition by partition.
func (k *Consumer) gather() ([]*Record, error) {
	k.pollMu.Lock()
	defer k.pollMu.Unlock()
	var out []*Record
	for len(out) < k.cfg.maxPoll {
		k.mu.Lock()
		if len(k.errs) > 0 && len(out) == 0 {
			err := k.errs[0]
			k.errs = k.errs[1:]
			k.mu.Unlock()
			return nil, err
		}
		fs := k.next()
		if fs == nil {
			k.mu.Unlock()
			return out, nil
		}
		if len(fs.records) > 0 {
			out = k.deliver(fs, out)
			k.mu.Unlock()
			continue
		}
		batch, from, session := fs.chunkBatch()
		k.mu.Unlock()
		rs, err := decodeBatch(fs.tp, batch, from, k.cfg.decodeLimit)
		k.mu.Lock()
		if fs.session == session && len(fs.chunks) > 0 {
			k.decoded(fs, batch, rs, err)
		}
		k.mu.Unlock()
	}
	return out, nil
}

// next returns the partition whose turn it is. mu is held.
func (k *Consumer) next() *fetchState {
	for len(k.ready) > 0 {
		fs := k.ready[0]
		if len(fs.records) > 0 || len(fs.chunks) > 0 {
			return fs
		}
		k.ready = k.ready[1:]
		fs.queued = false
	}
	return nil
}

// deliver moves decoded records to out, as many as there is room for, and lets the next partition have its turn. mu is held.
func (k *Consumer) deliver(fs *fetchState, out []*Record) []*Record {
	n := min(len(fs.records), k.cfg.maxPoll-len(out))
	if len(out) == 0 {
		out = fs.records[:n:n] // to append to it copies it
	} else {
		out = append(out, fs.records[:n]...)
	}
	fs.position = fs.records[n-1].Offset + 1
	fs.records = fs.records[n:]
	if len(fs.records) == 0 {
		fs.records = nil
		fs.position = max(fs.position, fs.after)
	}
	if len(k.ready) > 1 {
		k.ready = append(k.ready[1:], fs)
	}
	return out
}

// chunkBatch cuts the next batch off the partition's first chunk; nil if it is cut short, which decodeBatch refuses.
func (fs *fetchState) chunkBatch() (batch []byte, from int64, session uint64) {
	batch, _, err := record.Next(fs.chunks[0].data)
	if err != nil {
		batch = nil
	}
	return batch, fs.position, fs.session
}

// decoded files what a batch held. mu is held, and the chunk is the one that the batch was cut from.
func (k *Consumer) decoded(fs *fetchState, batch []byte, rs []*Record, err error) {
	if err != nil {
		k.damaged(fs, err)
		return
	}
	fs.corrupt = 0
	c := &fs.chunks[0]
	c.data = c.data[len(batch):]
	fs.records = rs
	if len(c.data) > 0 {
		return
	}
	fs.after = max(fs.after, c.next)
	if len(rs) == 0 {
		fs.position = max(fs.position, fs.after)
	}
	fs.stream.giveBack(c.credit)
	fs.chunks = fs.chunks[1:]
	if len(fs.chunks) == 0 {
		fs.chunks = nil
	}
}

// corruptTries is how often a damaged batch is fetched before that is an error: it may have been damaged on the way.
const corruptTries = 3

// damaged fetches again from where Poll has got to. mu is held.
func (k *Consumer) damaged(fs *fetchState, err error) {
	k.detach(fs)
	k.discard(fs)
	fs.corrupt++
	if fs.corrupt >= corruptTries {
		fs.stopped = true
		k.fail(&Error{Op: "Fetch", Code: CodeCorruptBatch, Message: err.Error(), Topic: fs.tp.Topic, Partition: fs.tp.Partition, cause: err})
	}
	k.client.cfg.logger.Warn("damaged batch", "partition", fs.tp, "offset", fs.position, "error", err)
	signal(k.wake)
}

// decodeBatch checks a batch and returns its records from an offset on; none of a control batch.
func decodeBatch(tp TopicPartition, batch []byte, from int64, limit int) ([]*Record, error) {
	h, err := record.Validate(batch)
	if err != nil {
		return nil, err
	}
	if h.Attributes.IsControl() || int64(h.LastOffset()) < from {
		return nil, nil
	}
	d := recordSlab{tp: tp, epoch: h.LeaderEpoch, from: from, left: int(h.Count)}
	if err := record.Walk(batch, limit, d.add); err != nil {
		return nil, err
	}
	return d.out, nil
}

// slabRecords is how many records share an allocation. It also bounds what a batch costs that only says it has millions: room is made as records turn up.
const slabRecords = 1024

// recordSlab makes Records of a batch's records. Keys and values stay where they are.
type recordSlab struct {
	tp    TopicPartition
	epoch int32
	from  int64 // records with lower offsets are left out
	left  int   // of those that the batch says it has
	slab  []Record
	out   []*Record

	ms   int64 // of the last record, with time its timestamp: most have the one of the record before
	time time.Time
}

func (d *recordSlab) add(r *record.Record) error {
	d.left--
	if int64(r.Offset) < d.from {
		return nil
	}
	if len(d.slab) == 0 {
		n := min(d.left+1, slabRecords)
		d.slab, d.out = make([]Record, n), slices.Grow(d.out, n)
	}
	if d.ms != r.Timestamp || d.time.IsZero() {
		d.ms, d.time = r.Timestamp, time.UnixMilli(r.Timestamp)
	}
	n := &d.slab[0]
	d.slab = d.slab[1:]
	n.Topic, n.Partition, n.Offset, n.LeaderEpoch = d.tp.Topic, d.tp.Partition, int64(r.Offset), d.epoch
	n.Timestamp, n.Key, n.Value = d.time, r.Key, r.Value
	if len(r.Headers) > 0 {
		n.Headers = slices.Clone(r.Headers) // Walk uses them again
	}
	d.out = append(d.out, n)
	return nil
}
