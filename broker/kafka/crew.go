package kafka

import "golang.org/x/sync/errgroup"

// crew does the parts of one request, at most workers of them at the same time. Its user waits for it; the parts answer for themselves.
type crew struct{ g errgroup.Group }

func newCrew() *crew {
	c := &crew{}
	c.g.SetLimit(workers)
	return c
}

// do runs f on a goroutine, and waits first while all are busy.
func (c *crew) do(f func()) { c.g.Go(func() error { f(); return nil }) }

func (c *crew) wait() { _ = c.g.Wait() }

// each does n parts and returns when all are done.
func each(n int, f func(i int)) {
	c := newCrew()
	for i := range n {
		c.do(func() { f(i) })
	}
	c.wait()
}
