package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

func newMemory(n int64) *memory {
	m := &memory{}
	m.free.Store(n)
	return m
}

// Whoever waits for much is not passed by those who need little, and is served when enough has come back.
func TestMemoryServesInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(10)
		if !m.tryAcquire(8) {
			t.Fatal("8 of 10 bytes were refused")
		}
		turn := make(chan int, 3)
		for i, n := range []int64{9, 1, 2} {
			go func() {
				if err := m.acquire(t.Context(), n); err != nil {
					t.Error(err)
				}
				turn <- i
			}()
			synctest.Wait() // so that they wait in this order
		}
		if m.tryAcquire(1) {
			t.Fatal("a byte went past those who wait")
		}
		m.release(6)
		synctest.Wait()
		if len(turn) != 0 {
			t.Fatal("8 bytes were enough for 9")
		}
		m.release(2)
		synctest.Wait()
		if first, second := <-turn, <-turn; first+second != 1 {
			t.Fatalf("the waiters %d and %d were served first, want 0 and 1", first, second)
		}
		m.release(2)
		if last := <-turn; last != 2 {
			t.Fatalf("waiter %d was served last, want 2", last)
		}
		if m.waiting.Load() != 0 || !m.tryAcquire(0) || m.free.Load() != 0 {
			t.Fatalf("%d wait, %d bytes are free, want none", m.waiting.Load(), m.free.Load())
		}
	})
}

// A waiter that gives up lets those behind it have what is free.
func TestMemoryWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory(2)
		ctx, cancel := context.WithCancel(t.Context())
		gaveUp, served := make(chan error, 1), make(chan error, 1)
		go func() { gaveUp <- m.acquire(ctx, 3) }()
		synctest.Wait()
		go func() { served <- m.acquire(t.Context(), 2) }()
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Fatalf("the first waiter got %v", err)
		}
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		if m.free.Load() != 0 || m.waiting.Load() != 0 {
			t.Fatalf("%d bytes are free and %d wait, want none", m.free.Load(), m.waiting.Load())
		}
	})
}

// Nothing is lost, and nobody is forgotten, however takers, waiters and those who give up meet.
func TestMemoryUnderContention(t *testing.T) {
	const bytes = 100
	m := newMemory(bytes)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				n := int64(1 + (g*31+i*7)%60)
				ctx, cancel := context.WithCancel(t.Context())
				if i%5 == 0 {
					cancel()
				}
				if m.tryAcquire(n) || m.acquire(ctx, n) == nil {
					m.release(n)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if m.free.Load() != bytes || m.waiting.Load() != 0 {
		t.Fatalf("%d bytes are free and %d wait, want %d and 0", m.free.Load(), m.waiting.Load(), bytes)
	}
}
