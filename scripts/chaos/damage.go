package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/scripts/measure"
)

const (
	foundWithin  = 20 * time.Second
	sealedWithin = time.Minute
	// sealedSegments is how many segments a replica must have for one to be chosen that is not written to any more.
	sealedSegments = 3
)

// corruptRunning damages a file of a running broker: it must be found, and the replica set aside and built anew, or an index, which is a copy, written anew; all
// without a restart.
func corruptRunning(pattern string, damage func(file string) error) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		i := e.rnd.IntN(startingBrokers)
		file, err := e.awaitSealed(ctx, i, pattern)
		if err != nil {
			return err
		}
		dir := filepath.Dir(file)
		before, err := os.Stat(dir)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		err = e.fault(ctx, "damage", i, func() error {
			if err := damage(file); err != nil {
				return err
			}
			start := time.Now()
			if err := mended(ctx, dir, before, file, content); err != nil {
				return fmt.Errorf("damage of %s/%s of broker %d: %w", filepath.Base(dir), filepath.Base(file), i+1, err)
			}
			e.notes = append(e.notes, fmt.Sprintf("damage found and mended or set aside after %d ms", time.Since(start).Milliseconds()))
			return e.healthy(ctx)
		})
		return errors.Join(err, measure.Pause(ctx, 2*time.Second))
	}
}

// awaitSealed waits until there is one.
func (e *env) awaitSealed(ctx context.Context, i int, pattern string) (string, error) {
	for until := time.Now().Add(sealedWithin); time.Now().Before(until); {
		if file, err := e.sealed(i, pattern); err != nil || file != "" {
			return file, err
		}
		if err := measure.Pause(ctx, 100*time.Millisecond); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("broker %d has no sealed %s after %s", i+1, pattern, sealedWithin)
}

// sealed chooses a file of a sealed segment of broker i; empty if there is none yet.
func (e *env) sealed(i int, pattern string) (string, error) {
	dirs, err := filepath.Glob(filepath.Join(e.cluster.Dir(i), "partitions", eventsTopic+"-*"))
	if err != nil {
		return "", err
	}
	var files []string
	for _, dir := range dirs {
		of, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			return "", err
		}
		switch slices.Sort(of); {
		case filepath.Ext(pattern) == ".ckpt" && len(of) > 0:
			files = append(files, of[len(of)-1]) // older ones may go at any time
		case len(of) >= sealedSegments:
			files = append(files, of[:len(of)-2]...)
		}
	}
	if len(files) == 0 {
		return "", nil
	}
	return files[e.rnd.IntN(len(files))], nil
}

// mended waits until another directory, or none, is where one was, or a file has its content again.
func mended(ctx context.Context, dir string, was os.FileInfo, file string, content []byte) error {
	ctx, cancel := context.WithTimeout(ctx, foundWithin)
	defer cancel()
	for {
		now, err := os.Stat(dir)
		if errors.Is(err, os.ErrNotExist) || err == nil && !os.SameFile(was, now) {
			return nil
		}
		if data, err := os.ReadFile(file); err == nil && bytes.Equal(data, content) {
			return nil
		}
		if measure.Pause(ctx, 5*time.Millisecond) != nil {
			return fmt.Errorf("it was not found within %s", foundWithin)
		}
	}
}

// flipInPlace changes one bit in the middle of what a file holds, and leaves all else alone.
func flipInPlace(file string) error {
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	end, err := held(f)
	if err != nil {
		return err
	}
	at := end / 2
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return err
	}
	b[0] ^= 1 << (at % 8)
	_, err = f.WriteAt(b, at)
	return err
}

// held tells how much of a file is not the zeros behind its end that were preallocated.
func held(f *os.File) (int64, error) {
	data, err := os.ReadFile(f.Name())
	if err != nil {
		return 0, err
	}
	end := len(data)
	for end > 0 && data[end-1] == 0 {
		end--
	}
	if end == 0 {
		return 0, fmt.Errorf("%s is empty", f.Name())
	}
	return int64(end), nil
}
