package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/flotilla-log/flotilla/scripts/measure"
)

// corrupt stops a broker, damages one of its partitions' files of a pattern, and starts it again; then all must become healthy.
func corrupt(pattern string, damage func(file string) error) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		i := e.rnd.IntN(startingBrokers)
		err := e.fault(ctx, "damage", i, func() error {
			e.cluster.Kill(i)
			files, err := filepath.Glob(filepath.Join(e.cluster.Dir(i), "partitions", "*", pattern))
			if err != nil || len(files) == 0 { // none yet: the next round will find some
				return errors.Join(err, e.start(ctx, i))
			}
			file := files[e.rnd.IntN(len(files))]
			if err := damage(file); err != nil {
				return err
			}
			if err := e.start(ctx, i); err != nil {
				return fmt.Errorf("%s: %w", filepath.Base(file), err)
			}
			if err := e.healthy(ctx); err != nil {
				return fmt.Errorf("%s/%s of broker %d: %w", filepath.Base(filepath.Dir(file)), filepath.Base(file), i+1, err)
			}
			return nil
		})
		// What only a scrub finds is found within this time.
		err = errors.Join(err, measure.Pause(ctx, 3*time.Second))
		if err != nil {
			return err
		}
		return e.healthy(ctx)
	}
}

var scrubFlags = []string{"--scrub-every", "500ms", "--scrub-bytes-per-second", "64MiB"}

// flip changes one bit in each of three places of what the file holds.
func flip(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	end := len(data)
	for end > 0 && data[end-1] == 0 {
		end-- // the rest was preallocated
	}
	if end == 0 {
		return fmt.Errorf("%s is empty", file)
	}
	for _, at := range []int{end / 4, end / 2, end * 3 / 4} {
		data[at] ^= 1 << (at % 8)
	}
	return os.WriteFile(file, data, 0o600)
}

func halve(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	return os.Truncate(file, info.Size()/2)
}

const (
	smallDiskBytes = 160 << 20
	ballast        = "ballast"
)

var smallDiskFlags = []string{"--disk-reserve", "8MiB"}

// smallDisks gives the first n brokers file systems of their own.
func smallDisks(n int) func(e *env) (func(), error) {
	return func(e *env) (func(), error) {
		clean := func() {
			for i := range n {
				e.cluster.Kill(i)
				_ = unmount(e.cluster.Dir(i))
			}
		}
		for i := range n {
			if err := mountSmall(e.cluster.Dir(i), smallDiskBytes); err != nil {
				clean()
				return nil, err
			}
		}
		return clean, nil
	}
}

// fill fills these disks to the last byte for some seconds and frees them.
func fill(n int) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		err := e.fault(ctx, "full", nobody, func() error {
			for i := range n {
				if err := fillDisk(filepath.Join(e.cluster.Dir(i), ballast)); err != nil {
					return err
				}
			}
			err := measure.Pause(ctx, 6*time.Second)
			for i := range n {
				err = errors.Join(err, os.Remove(filepath.Join(e.cluster.Dir(i), ballast)))
			}
			return err
		})
		return errors.Join(err, measure.Pause(ctx, 5*time.Second))
	}
}

func fillDisk(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for block := make([]byte, 64<<10); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2] // ever smaller ones, until nothing fits
		}
	}
	return nil
}
