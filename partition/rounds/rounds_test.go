package rounds

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// work is a round under way: what is sent ends it.
type work chan error

type table struct {
	*Rounds[int]
	began chan work     // each round as it begins
	left  time.Duration // that the newest round was given
	count int
}

func newTable() *table {
	w := &table{began: make(chan work, 9)}
	w.Rounds = New(time.Second, func(ctx context.Context) (int, error) {
		w.count++
		deadline, _ := ctx.Deadline()
		w.left = time.Until(deadline)
		n, end := w.count, make(work)
		w.began <- end
		select {
		case err := <-end:
			return n, err
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	return w
}

type answer struct {
	round int
	err   error
}

// ask asks for a round and returns when the question is settled in.
func (w *table) ask(ctx context.Context) <-chan answer {
	out := make(chan answer, 1)
	go func() {
		n, err := w.Do(ctx)
		out <- answer{n, err}
	}()
	synctest.Wait()
	return out
}

// Who asks while a round is under way gets the next one, together with all others who ask meanwhile, also with those who give up.
func TestNextRoundIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, failure := newTable(), errors.New("no leader")
		defer w.Close()
		first := w.ask(t.Context())
		one := <-w.began
		second, third := w.ask(t.Context()), w.ask(t.Context())
		impatient, giveUp := context.WithCancel(t.Context())
		fourth := w.ask(impatient)
		giveUp()
		if a := <-fourth; !errors.Is(a.err, context.Canceled) {
			t.Errorf("who gave up: %+v", a)
		}
		if len(w.began)+len(first)+len(second)+len(third) > 0 {
			t.Fatal("another round began, or somebody got an answer, before the first round was over")
		}
		one <- failure
		if a := <-first; a != (answer{1, failure}) {
			t.Errorf("the first: %+v", a)
		}
		two := <-w.began
		two <- nil
		if b, c := <-second, <-third; b != (answer{2, nil}) || c != b {
			t.Errorf("the second: %+v, the third: %+v", b, c)
		}
		synctest.Wait()
		if len(w.began) > 0 {
			t.Error("there was a round that nobody had asked for")
		}
	})
}

// A round that hangs ends, and the next one has all of its time; Close ends what is under way.
func TestRoundsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, began := newTable(), time.Now()
		hangs, _ := w.ask(t.Context()), <-w.began
		waits := w.ask(t.Context())
		if a := <-hangs; !errors.Is(a.err, context.DeadlineExceeded) || time.Since(began) != w.limit {
			t.Errorf("the round that hung: %+v after %s", a, time.Since(began))
		}
		two := <-w.began
		if w.left != w.limit {
			t.Errorf("the next round was given %s", w.left)
		}
		two <- nil
		if a := <-waits; a != (answer{2, nil}) {
			t.Errorf("the next: %+v", a)
		}
		last := w.ask(t.Context())
		w.Close()
		if a := <-last; !errors.Is(a.err, context.Canceled) || time.Since(began) != w.limit {
			t.Errorf("the round that was closed: %+v after %s", a, time.Since(began))
		}
		if a := <-w.ask(t.Context()); !errors.Is(a.err, ErrClosed) {
			t.Errorf("after Close: %+v", a)
		}
	})
}
