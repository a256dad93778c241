package partition

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

type spaceOnDisk struct {
	free int64
	err  error
}

func (d *spaceOnDisk) FreeSpace() (int64, error) { return d.free, d.err }
func (d *spaceOnDisk) LastStoreError() error     { return nil }

func TestSpaceGuard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &spaceOnDisk{}
		g := &spaceGuard{log: d, reserve: 6400}
		for _, x := range []struct {
			free             int64
			err              error
			batches, command bool // get through
		}{
			{6400, nil, true, true},
			{6399, nil, false, true},
			{1600, nil, false, true},
			{1599, nil, false, false},
			{0, nil, false, false},
			{0, errors.New("cannot tell"), true, true},
			{10_000, nil, true, true},
		} {
			time.Sleep(spaceInterval) // virtual
			d.free, d.err = x.free, x.err
			if b, c := g.check(1, false), g.check(1, true); (b == nil) != x.batches || (c == nil) != x.command {
				t.Errorf("%d bytes free, %v: batches %v, commands %v", x.free, x.err, b, c)
			}
		}
		d.free = 0
		if err := g.check(1, false); err != nil {
			t.Errorf("it was asked again at once: %v", err)
		}
		time.Sleep(spaceInterval)
		if err := g.check(1, false); !errors.Is(err, ErrStorageFull) {
			t.Error(err)
		}
		d.free = 6400
		time.Sleep(spaceIntervalFull) // a full disk is looked at more often
		if err := g.check(1, false); err != nil {
			t.Error(err)
		}
		d.free = 50 // another look is due after some bytes, too
		if err := g.check(1, false); err != nil {
			t.Errorf("it was asked again at once: %v", err)
		}
		_ = g.check(100, false)
		if err := g.check(1, false); !errors.Is(err, ErrStorageFull) {
			t.Error(err)
		}
		if err := (&spaceGuard{log: &spaceOnDisk{}, reserve: -1}).check(1, false); err != nil {
			t.Errorf("without a reserve: %v", err)
		}
	})
}
