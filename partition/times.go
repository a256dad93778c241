package partition

import (
	"errors"

	"github.com/flotilla-log/flotilla/proto/record"
)

// errStop ends a walk over records.
var errStop = errors.New("stop")

// OffsetForTimestamp finds the first record with a timestamp (Unix ms) at or after ms. Leader only.
func (r *Replica) OffsetForTimestamp(ms int64) (offset record.Offset, ts int64, found bool, err error) {
	if err := r.serves(); err != nil {
		return -1, -1, false, err
	}
	from, limit := r.Bounds()
	for from < limit {
		batch, ok, err := r.log.BatchForTimestamp(ms, from, limit)
		if err != nil {
			return -1, -1, false, r.readError(from, err)
		}
		if !ok {
			break
		}
		offset, ts, found, next, err := r.firstRecord(batch, from, func(t int64) bool { return t >= ms })
		if err != nil || found {
			return offset, ts, found, err
		}
		from = next // the batch's late records are before the log start
	}
	return -1, -1, false, nil
}

// MaxTimestamp finds the first record with the largest timestamp. Leader only.
func (r *Replica) MaxTimestamp() (offset record.Offset, ts int64, found bool, err error) {
	if err := r.serves(); err != nil {
		return -1, -1, false, err
	}
	from, limit := r.Bounds()
	if from >= limit {
		return -1, -1, false, nil
	}
	batch, ok, err := r.log.MaxTimestampBatch(from, limit)
	if err != nil || !ok {
		return -1, -1, false, r.readErrorOrNil(from, err)
	}
	h, err := record.ParseHeader(batch)
	if err != nil {
		return -1, -1, false, r.readError(from, err)
	}
	offset, ts, found, _, err = r.firstRecord(batch, from, func(t int64) bool { return t >= h.MaxTimestamp })
	if err == nil && !found { // the record is before the log start: any of the batch's others is as good an answer
		offset, ts, found, _, err = r.firstRecord(batch, from, func(int64) bool { return true })
	}
	return offset, ts, found, err
}

func (r *Replica) readErrorOrNil(offset record.Offset, err error) error {
	if err == nil {
		return nil
	}
	return r.readError(offset, err)
}

// firstRecord finds the batch's first record at or after from whose timestamp suits. next is the offset after the batch.
func (r *Replica) firstRecord(batch []byte, from record.Offset, suits func(int64) bool) (offset record.Offset, ts int64, found bool, next record.Offset, err error) {
	h, err := record.ParseHeader(batch)
	if err != nil {
		return -1, -1, false, 0, r.readError(from, err)
	}
	offset, ts = -1, -1
	err = record.Walk(batch, r.cfg.Limits.StateBytes, func(rec *record.Record) error {
		if rec.Offset < from || !suits(rec.Timestamp) {
			return nil
		}
		offset, ts, found = rec.Offset, rec.Timestamp, true
		return errStop
	})
	if err != nil && !errors.Is(err, errStop) {
		return -1, -1, false, 0, r.readError(from, err)
	}
	return offset, ts, found, h.Next(), nil
}
