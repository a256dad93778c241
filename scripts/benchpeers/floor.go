package main

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// floorName is the column of what the machine allows by itself.
const floorName = "machine"

// floor measures what stands below every system: the disk, the loopback interface, the record format, and the way of the data over all of them.
func floor(r *report, dir string) error {
	return errors.Join(diskFloor(r, dir), loopbackFloor(r), codecFloor(r), codecAlone(r, 100), pathFloor(r, dir))
}

// diskFloor appends and syncs, on a file that grows, one that is allocated, and one whose blocks were written before.
func diskFloor(r *report, dir string) error {
	for _, size := range []int{4 << 10, 64 << 10, 1 << 20} {
		for _, kind := range []string{"growing", "allocated", "written before"} {
			took, err := appendAndSync(filepath.Join(dir, "floor"), kind, size, 200)
			if err != nil {
				return err
			}
			label := fmt.Sprintf("fdatasync after appending %d KiB, file %s", size>>10, kind)
			r.add(floorName, label, "ms", fewer, took.Seconds()*1000)
		}
	}
	return threeFiles(r, dir)
}

// appendAndSync returns the mean time of n appends.
func appendAndSync(path, kind string, size, n int) (time.Duration, error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close(); _ = os.Remove(path) }()
	total := int64(size * n)
	switch kind {
	case "allocated":
		err = syscall.Fallocate(int(f.Fd()), 0, 0, total)
	case "written before":
		_, err = f.WriteAt(make([]byte, total), 0)
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		return 0, err
	}
	block := make([]byte, size)
	start := time.Now()
	for i := range n {
		if _, err := f.WriteAt(block, int64(i*size)); err != nil {
			return 0, err
		}
		if err := syscall.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
	}
	return time.Since(start) / time.Duration(n), nil
}

// threeFiles writes in parallel, as three brokers do.
func threeFiles(r *report, dir string) error {
	const size, n = 64 << 10, 1500
	errs := make([]error, servers)
	var wg sync.WaitGroup
	start := time.Now()
	for i := range errs {
		wg.Go(func() { _, errs[i] = appendAndSync(filepath.Join(dir, fmt.Sprint("floor", i)), "allocated", size, n) })
	}
	wg.Wait()
	mb := float64(servers*size*n) / 1e6
	r.add(floorName, "three files in parallel, 64 KiB appends, each synced", "MB/s", more, mb/time.Since(start).Seconds())
	return errors.Join(errs...)
}

func loopbackFloor(r *report) (err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(echoOne{c}, c); _ = c.Close() }()
		}
	}()
	if err := roundTrips(r, l.Addr().String()); err != nil {
		return err
	}
	return transfer(r)
}

// echoOne answers every write with what was written.
type echoOne struct{ net.Conn }

func roundTrips(r *report, addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	const n = 5000
	b := make([]byte, 100)
	start := time.Now()
	for range n {
		if _, err := c.Write(b); err != nil {
			return err
		}
		if _, err := io.ReadFull(c, b); err != nil {
			return err
		}
	}
	r.add(floorName, "loopback round trip, 100 B", "ms", fewer, time.Since(start).Seconds()*1000/n)
	return nil
}

// transfer sends 2 GB one way.
func transfer(r *report) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	const total = 2e9
	sent := make(chan error, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			sent <- err
			return
		}
		b := make([]byte, 256<<10)
		for n := 0; n < total && err == nil; n += len(b) {
			_, err = c.Write(b)
		}
		sent <- errors.Join(err, c.Close())
	}()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	start, b, n := time.Now(), make([]byte, 256<<10), 0
	for {
		m, err := c.Read(b)
		n += m
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	r.add(floorName, "loopback, one connection, one way", "MB/s", more, float64(n)/1e6/time.Since(start).Seconds())
	return <-sent
}

// codecFloor builds and decodes batches of 64 KiB on one core.
func codecFloor(r *report) error {
	for _, bytes := range []int{100, kib} {
		vs := values(bytes)
		var batch []byte
		n, start := 0, time.Now()
		for time.Since(start) < time.Second {
			b := record.NewBuilder(record.BuilderOptions{})
			for b.Size() < 64<<10 {
				if err := b.Append(record.Record{Value: vs[n%len(vs)]}); err != nil {
					return err
				}
				n++
			}
			var err error
			if batch, err = b.Build(); err != nil {
				return err
			}
		}
		r.add(floorName, fmt.Sprintf("building batches of %s records, one core", size(bytes)), "records/s", more, float64(n)/time.Since(start).Seconds())
		n, start = 0, time.Now()
		for time.Since(start) < time.Second {
			records, err := record.Decode(batch, 1<<20)
			if err != nil {
				return err
			}
			n += len(records)
		}
		r.add(floorName, fmt.Sprintf("decoding batches of %s records, one core", size(bytes)), "records/s", more, float64(n)/time.Since(start).Seconds())
	}
	block, start, n := make([]byte, 1<<20), time.Now(), 0
	for sum := uint32(0); time.Since(start) < time.Second/2; n++ {
		sum = crc32.Update(sum, castagnoli, block)
	}
	r.add(floorName, "CRC-32C, one core", "MB/s", more, float64(n)/time.Since(start).Seconds()*float64(len(block))/1e6)
	return nil
}
