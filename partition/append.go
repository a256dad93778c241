package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Append appends one batch and returns when it is committed, as durably as the flush setting says. Concurrent calls for one partition share group
// commits. Errors that are not ErrOutcomeUnknown (or ErrDuplicateSequence, which says that the batch was stored before) mean that nothing was stored.
func (r *Replica) Append(ctx context.Context, req AppendRequest) (AppendResult, error) {
	type outcome struct {
		res AppendResult
		err error
	}
	ch := make(chan outcome, 1)
	if err := r.append(ctx, req, func(res AppendResult, err error) { ch <- outcome{res, err} }); err != nil {
		return AppendResult{}, err
	}
	select {
	case o := <-ch:
		return o.res, o.err
	case <-ctx.Done():
		return AppendResult{}, fmt.Errorf("%s: %w: %w", r.cfg.Name, ErrOutcomeUnknown, ctx.Err())
	}
}

// AppendAsync enters the batch into the sequencer before it returns, so that consecutive calls keep their order, and calls done exactly once, from another
// goroutine. It waits while the budget of bytes in flight is used up. done must not block: outcomes of other batches wait behind it.
func (r *Replica) AppendAsync(ctx context.Context, req AppendRequest, done func(AppendResult, error)) {
	if err := r.append(ctx, req, done); err != nil {
		go done(AppendResult{}, err)
	}
}

// append does all that needs no order (validation, compression, time) on the caller's goroutine and then submits. It calls done if and only if it
// returns nil.
func (r *Replica) append(ctx context.Context, req AppendRequest, done func(AppendResult, error)) error {
	settings := r.settings.Load()
	header, batch, err := r.prepare(ctx, settings, req.Batch)
	if err != nil {
		return fmt.Errorf("%s: %w", r.cfg.Name, err)
	}
	release, err := r.seq.charge(ctx, len(batch))
	if err != nil {
		return err
	}
	records, bytes, began := int(header.Count), len(batch), time.Now()
	err = r.seq.submit(ctx, submission{
		data: batch, batch: true, header: header, expected: req.Expected,
		reply: func(res proposalResult) {
			release()
			if res.err == nil && !res.duplicate {
				r.cfg.Meter.Acknowledged(records, bytes, time.Since(began))
			}
			done(r.appendResult(settings, res))
		},
	})
	if err != nil {
		release()
		return err
	}
	r.cfg.Meter.Appended(records, bytes)
	return nil
}

// prepare checks a batch and brings it into the form in which it will be stored.
func (r *Replica) prepare(ctx context.Context, s *Settings, batch []byte) (record.Header, []byte, error) {
	if len(batch) > s.MaxMessageBytes {
		return record.Header{}, nil, tooLarge(len(batch), s)
	}
	h, err := record.Validate(batch)
	if err != nil {
		return h, nil, err
	}
	if err := checkHeader(h); err != nil {
		return h, nil, err
	}
	if batch, err = r.convert(ctx, s, h, batch); err != nil {
		return h, nil, err
	}
	if len(batch) > s.MaxMessageBytes {
		return h, nil, tooLarge(len(batch), s)
	}
	if s.LogAppendTime {
		record.SetLogAppendTime(batch, r.cfg.Now().UnixMilli())
	}
	h, err = record.ParseHeader(batch)
	return h, batch, err
}

// convert looks into the records, since a batch that does not parse would stop every consumer for ever, and compresses them as the topic's settings
// say.
func (r *Replica) convert(ctx context.Context, s *Settings, h record.Header, batch []byte) ([]byte, error) {
	look := func() error {
		err := record.ValidateRecords(batch, r.cfg.Limits.StateBytes)
		if errors.Is(err, record.ErrCorrupt) { // the CRC was right: sending it again does not help
			return fmt.Errorf("%w: its records cannot be read: %v", record.ErrInvalid, err) //nolint:errorlint // it is not ErrCorrupt any more
		}
		if err == nil && s.Compression != nil {
			batch, err = record.Recompress(batch, *s.Compression, r.cfg.Limits.StateBytes)
		}
		return err
	}
	compressed := h.Attributes.Compression()
	if compressed == record.None && (s.Compression == nil || *s.Compression == record.None) {
		return batch, look() // nothing to decompress
	}
	err := r.seq.decoders().decode(ctx, look)
	return batch, err
}

func tooLarge(n int, s *Settings) error {
	return fmt.Errorf("%w: it has %d bytes and the topic's max.message.bytes is %d: send smaller batches or raise that", ErrTooLarge, n, s.MaxMessageBytes)
}

// checkHeader refuses what only a broker may write, and what this release does not do.
func checkHeader(h record.Header) error {
	switch {
	case h.Attributes.IsControl():
		return fmt.Errorf("%w: producers may not write control batches", record.ErrInvalid)
	case h.Attributes.IsTransactional():
		return fmt.Errorf("%w: transactions are not supported", record.ErrInvalid)
	case h.MaxTimestamp < -1 || h.BaseTimestamp < -1:
		return fmt.Errorf("%w: its timestamp %d is before 1970", record.ErrInvalid, min(h.MaxTimestamp, h.BaseTimestamp))
	case h.Idempotent() && (h.ProducerEpoch < 0 || h.BaseSequence < 0):
		return fmt.Errorf("%w: producer %d has epoch %d and sequence %d", record.ErrInvalid, h.ProducerID, h.ProducerEpoch, h.BaseSequence)
	}
	return nil
}

func (r *Replica) appendResult(s *Settings, res proposalResult) (AppendResult, error) {
	if res.err != nil {
		return AppendResult{}, res.err
	}
	start, _ := r.Bounds()
	out := AppendResult{
		BaseOffset: res.header.BaseOffset, LogAppendTime: -1, LogStart: start, LeaderEpoch: res.header.LeaderEpoch, Duplicate: res.duplicate,
	}
	if s.LogAppendTime {
		out.LogAppendTime = res.header.MaxTimestamp
	}
	return out, nil
}

// Propose replicates a command for the Machine and returns what its Apply returned on this replica. The first byte of cmd must be from 0x80 to 0xEF.
// It keeps cmd. Errors that are not ErrOutcomeUnknown mean that the command was not and will not be applied.
func (r *Replica) Propose(ctx context.Context, cmd []byte) (any, error) {
	if err := r.checkCommand(cmd); err != nil {
		return nil, err
	}
	return r.propose(ctx, submission{data: cmd})
}

// ProposeUpkeep is Propose for commands that a new leader cannot serve without, and that hardly need any space: it does not keep the disk's reserve.
func (r *Replica) ProposeUpkeep(ctx context.Context, cmd []byte) (any, error) {
	if err := r.checkCommand(cmd); err != nil {
		return nil, err
	}
	return r.propose(ctx, submission{data: cmd, upkeep: true})
}

func (r *Replica) checkCommand(cmd []byte) error {
	if len(cmd) == 0 || cmd[0] < machineCommandMin || cmd[0] >= ownCommandMin {
		return fmt.Errorf("%s: %w", r.cfg.Name, errCommand)
	}
	if r.cfg.Machine == nil {
		return fmt.Errorf("%s: %w: this group has no machine", r.cfg.Name, errCommand)
	}
	return nil
}

// propose replicates any command.
func (r *Replica) propose(ctx context.Context, sub submission) (any, error) {
	cmd := sub.data
	if len(cmd) > maxEntryBytes {
		return nil, fmt.Errorf("%s: %w: a command of %d bytes", r.cfg.Name, ErrTooLarge, len(cmd))
	}
	release, err := r.seq.charge(ctx, len(cmd))
	if err != nil {
		return nil, err
	}
	ch := make(chan proposalResult, 1)
	sub.reply = func(res proposalResult) {
		release()
		ch <- res
	}
	if err := r.seq.submit(ctx, sub); err != nil {
		release()
		return nil, err
	}
	select {
	case res := <-ch:
		return res.value, res.err
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w: %w", r.cfg.Name, ErrOutcomeUnknown, ctx.Err())
	}
}
