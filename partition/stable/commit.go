package stable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/flotilla-log/flotilla/partition/transport"
)

// groupKeySize is the length of the group's ID, big-endian, before each key.
const groupKeySize = 8

const (
	spaceRetryMin = 50 * time.Millisecond
	spaceRetryMax = 2 * time.Second
)

// write is one wish to change the file: with clear the removal of all that a group has, then, if bucket is not nil, a value for a key.
type write struct {
	group   transport.GroupID
	clear   bool
	bucket  []byte
	key     string
	value   []byte
	patient bool       // waits for space instead of failing
	done    chan error // receives once
}

func backoff(attempt int) time.Duration {
	return min(spaceRetryMin<<min(attempt, 10), spaceRetryMax)
}

// write queues a write and waits until it is durable, or has failed, or giveUp closes (ErrClosed). A write that was
// given up may still become durable, before any later one.
func (s *Store) write(w *write, giveUp <-chan struct{}) error {
	w.done = make(chan error, 1)
	queued, err := s.enqueue(w)
	if !queued {
		return err
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	select {
	case err := <-w.done:
		return err
	case <-giveUp:
		return ErrClosed
	}
}

// enqueue reports false when there is nothing to wait for: the value is durable already, or never will be.
func (s *Store) enqueue(w *write) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return false, s.err
	case s.closed:
		return false, ErrClosed
	case !w.clear && s.damaged[w.group] != nil:
		return false, s.damaged[w.group]
	case s.pending[w.group] == 0 && s.isDurable(w):
		return false, nil
	}
	s.pending[w.group]++
	s.queue = append(s.queue, w)
	return true, nil
}

func (s *Store) isDurable(w *write) bool {
	kv := s.values[w.group]
	if w.bucket == nil {
		return len(kv) == 0
	}
	old, ok := kv[cacheKey(w.bucket, w.key)]
	return ok && bytes.Equal(old, w.value) && (!w.clear || len(kv) == 1 && s.damaged[w.group] == nil)
}

// run commits what gathers, all of it in one transaction at a time.
func (s *Store) run() {
	defer close(s.done)
	defer s.refuseRest()
	attempt := 0
	for {
		batch := s.takeQueue()
		if len(batch) == 0 {
			select {
			case <-s.wake:
				continue
			case <-s.stop:
				if batch = s.takeQueue(); len(batch) == 0 {
					return
				}
			}
		}
		err := s.commit(batch)
		switch {
		case err == nil:
			attempt = 0
			s.stored(batch)
		case isNoSpace(err):
			s.log.Warn("no space for terms and votes, waiting", "path", s.opts.Path, "error", err)
			s.putBack(batch, err)
			if !s.sleep(s.pause(attempt)) {
				return
			}
			attempt++
		default:
			s.fail(batch, err)
			return
		}
	}
}

func (s *Store) takeQueue() []*write {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.queue
	s.queue = nil
	return batch
}

// stored makes a committed batch visible, then tells the writers.
func (s *Store) stored(batch []*write) {
	s.mu.Lock()
	for _, w := range batch {
		if w.clear {
			delete(s.values, w.group)
			delete(s.damaged, w.group)
		}
		if w.bucket != nil {
			s.keep(w.group, cacheKey(w.bucket, w.key), w.value)
		}
		s.settleLocked(w)
	}
	s.mu.Unlock()
	for _, w := range batch {
		w.done <- nil
	}
}

func (s *Store) settleLocked(w *write) {
	if s.pending[w.group]--; s.pending[w.group] == 0 {
		delete(s.pending, w.group)
	}
}

// putBack keeps the patient writes for the next attempt, in their place before later ones, and refuses the others.
func (s *Store) putBack(batch []*write, cause error) {
	s.mu.Lock()
	var keep, refuse []*write
	for _, w := range batch {
		if w.patient {
			keep = append(keep, w)
			continue
		}
		refuse = append(refuse, w)
		s.settleLocked(w)
	}
	s.queue = append(keep, s.queue...)
	s.mu.Unlock()
	for _, w := range refuse {
		w.done <- fmt.Errorf("%w: %w", ErrNoSpace, cause)
	}
}

// sleep returns false when the store closes.
func (s *Store) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.stop:
		return false
	}
}

// fail ends the store for good.
func (s *Store) fail(batch []*write, cause error) {
	err := fmt.Errorf("%s: %w: %w", s.opts.Path, ErrFailed, cause)
	s.log.Error("cannot store terms and votes", "error", err)
	s.mu.Lock()
	s.err = err
	s.mu.Unlock()
	for _, w := range batch {
		w.done <- err
	}
	if s.opts.OnFailure != nil {
		s.opts.OnFailure(err)
	}
}

// refuseRest ends the writes that were still queued when run ended. enqueue lets no more in: closed or err is set.
func (s *Store) refuseRest() {
	err := s.Err()
	if err == nil {
		err = ErrClosed
	}
	for _, w := range s.takeQueue() {
		w.done <- err
	}
}

// commitBolt stores a batch in one transaction, and the sum with it. bbolt syncs the pages before it writes and syncs the meta page that
// makes them current, so a crash leaves either all of the batch or none. It panics on pages that were damaged since Open; that is an error like a disk's.
func (s *Store) commitBolt(batch []*write) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	next := s.total
	err = s.db.Update(func(tx *bbolt.Tx) error {
		for _, w := range batch {
			if err := w.apply(tx, &next); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketFormat).Put(keySum, next.encode())
	})
	if err == nil {
		s.total = next
	}
	return err
}

func (w *write) apply(tx *bbolt.Tx, t *total) error {
	if w.clear {
		for _, name := range [][]byte{bucketConf, bucketMarkers} {
			if err := deletePrefix(tx.Bucket(name), fileKey(w.group, ""), t); err != nil {
				return err
			}
		}
	}
	if w.bucket == nil {
		return nil
	}
	key, b := fileKey(w.group, w.key), tx.Bucket(w.bucket)
	if old := b.Get(key); old != nil {
		t.removeStored(old)
	}
	t.add(valueCheck(w.bucket, key, w.value))
	return b.Put(key, seal(w.bucket, key, w.value))
}

func deletePrefix(b *bbolt.Bucket, prefix []byte, t *total) error {
	var keys [][]byte
	c := b.Cursor()
	for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		keys = append(keys, bytes.Clone(k))
		t.removeStored(v)
	}
	for _, k := range keys {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

// isNoSpace tells a write refused for lack of space, which left the file as it was and may be tried again, from the
// same error out of an fsync, after which the page cache cannot be trusted: the former names the operation.
func isNoSpace(err error) bool {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return false
	}
	var pe *fs.PathError
	return errors.As(err, &pe) && (pe.Op == "write" || pe.Op == "truncate")
}
