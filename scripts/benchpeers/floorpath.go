package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// What the way of the data costs by itself: a program that does with records what three brokers and a client have to do with them, and nothing else. It has no Raft, no
// RPC, no index, no acknowledgements, and all of it is one process.

const (
	floorBatch  = 256 << 10 // a batch, as producers make them when they are busy
	floorSync   = 1 << 20   // bytes for each fdatasync
	floorStored = 256 << 20 // what the consuming side reads, several times over
	floorFor    = time.Second
)

func pathFloor(r *report, dir string) error {
	return errors.Join(producePath(r, dir, 100), producePath(r, dir, kib), consumePath(r, dir, kib), killFloor(r))
}

// producePath: a client builds batches and sends them; a leader checks them, stores them and sends them to two followers, which check and store them. Every store syncs.
func producePath(r *report, dir string, bytes int) error {
	var errs [servers]error
	var stores sync.WaitGroup
	addrs := make([]string, servers) // the leader is the first
	for i := servers - 1; i >= 0; i-- {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addrs[i] = l.Addr().String()
		var others []string
		if i == 0 {
			others = addrs[1:]
		}
		stores.Go(func() { errs[i] = floorBroker(l, filepath.Join(dir, fmt.Sprint("path", i)), others) })
	}
	own, start := ownCPU(), time.Now()
	n, err := floorClient(addrs[0], bytes)
	stores.Wait()
	if err = errors.Join(append(errs[:], err)...); err != nil {
		return err
	}
	took, gb := time.Since(start), float64(n*bytes)/1e9
	label := fmt.Sprintf("producing %s: build, check, three page caches and disks, loopback", size(bytes))
	r.add(floorName, label, "records/s", more, float64(n)/took.Seconds())
	r.add(floorName, label+": CPU", "s/GB", fewer, (ownCPU()-own)/gb)
	return nil
}

// floorClient sends batches, each behind its length, and returns how many records that were.
func floorClient(addr string, bytes int) (n int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	vs := values(bytes)
	for start := time.Now(); time.Since(start) < floorFor; {
		batch, m, err := buildBatch(vs, floorBatch)
		if err != nil {
			return n, err
		}
		if err := sendBatch(c, batch); err != nil {
			return n, err
		}
		n += m
	}
	return n, nil
}

func buildBatch(vs [][]byte, size int) (batch []byte, n int, err error) {
	b := record.NewBuilder(record.BuilderOptions{})
	for ; b.Size() < size; n++ {
		if err := b.Append(record.Record{Value: vs[n%len(vs)]}); err != nil {
			return nil, n, err
		}
	}
	batch, err = b.Build()
	return batch, n, err
}

func sendBatch(c net.Conn, batch []byte) error {
	bufs := net.Buffers{binary.BigEndian.AppendUint32(nil, uint32(len(batch))), batch}
	_, err := bufs.WriteTo(c)
	return err
}

// floorBroker stores what it gets on one connection until that ends. With others it is the leader.
func floorBroker(l net.Listener, path string, others []string) (err error) {
	in, err := l.Accept()
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	var out []net.Conn
	for _, addr := range others {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		out = append(out, c)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close(); _ = os.Remove(path) }()
	s := floorStore{f: f}
	buf := make([]byte, 2*floorBatch)
	for {
		batch, err := receiveBatch(in, buf)
		if errors.Is(err, io.EOF) {
			return s.sync()
		}
		if err == nil {
			err = errors.Join(checkBatch(batch, len(others) > 0), s.put(batch))
		}
		for _, c := range out {
			err = errors.Join(err, sendBatch(c, batch))
		}
		if err != nil {
			return err
		}
	}
}

func receiveBatch(c net.Conn, buf []byte) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n > len(buf) {
		return nil, fmt.Errorf("a batch of %d bytes", n)
	}
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkBatch does what a leader does with a batch of a client, or a follower with one of its leader.
func checkBatch(batch []byte, leader bool) error {
	if !leader {
		crc32.Checksum(batch, castagnoli)
		return nil
	}
	_, err := record.Validate(batch)
	return errors.Join(err, record.ValidateRecords(batch, 1<<20))
}

// floorStore appends to a file that is allocated ahead.
type floorStore struct {
	f                    *os.File
	end, synced, alloced int64
}

func (s *floorStore) put(b []byte) error {
	if s.end+int64(len(b)) > s.alloced {
		const ahead = 64 << 20
		if err := syscall.Fallocate(int(s.f.Fd()), 0, s.alloced, ahead); err != nil {
			return err
		}
		s.alloced += ahead
	}
	n, err := s.f.WriteAt(b, s.end)
	s.end += int64(n)
	if err != nil || s.end-s.synced < floorSync {
		return err
	}
	return s.sync()
}

func (s *floorStore) sync() error {
	s.synced = s.end
	return syscall.Fdatasync(int(s.f.Fd()))
}

// consumePath: one side reads stored batches from the page cache and sends them, the other checks and decodes them.
func consumePath(r *report, dir string, bytes int) error {
	path := filepath.Join(dir, "path")
	defer func() { _ = os.Remove(path) }()
	batch, per, err := buildBatch(values(bytes), floorBatch)
	if err != nil {
		return err
	}
	count := floorStored / len(batch)
	if err := storeMany(path, batch, count); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	own, start := ownCPU(), time.Now()
	served := make(chan error, 1)
	go func() { served <- serveStored(l, path, len(batch)) }()
	n, err := readDecoding(l.Addr().String(), len(batch))
	if err = errors.Join(err, <-served); err != nil {
		return err
	}
	took := time.Since(start)
	if n == 0 || n%(per*count) != 0 {
		return fmt.Errorf("%d records came, and %d are stored", n, per*count)
	}
	label := fmt.Sprintf("consuming %s: page cache, loopback, decode", size(bytes))
	r.add(floorName, label, "records/s", more, float64(n)/took.Seconds())
	r.add(floorName, label+": volume", "MB/s", more, float64(n*bytes)/1e6/took.Seconds())
	r.add(floorName, label+": CPU", "s/GB", fewer, (ownCPU()-own)/(float64(n*bytes)/1e9))
	return nil
}

func storeMany(path string, batch []byte, count int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	for range count {
		if _, err := f.Write(batch); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// serveStored sends the file again and again to who connects.
func serveStored(l net.Listener, path string, chunk int) error {
	c, err := l.Accept()
	if err = errors.Join(err, l.Close()); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, chunk)
	for start := time.Now(); time.Since(start) < floorFor && err == nil; {
		for pos := int64(0); err == nil; pos += int64(chunk) {
			if _, err = f.ReadAt(buf, pos); err == nil {
				_, err = c.Write(buf)
			}
		}
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	return errors.Join(err, c.Close())
}

func readDecoding(addr string, chunk int) (n int, err error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	for {
		buf := make([]byte, chunk) // the records share it, and are the application's
		if _, err := io.ReadFull(c, buf); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return n, err
		}
		if _, err := record.Validate(buf); err != nil {
			return n, err
		}
		records, err := record.Decode(buf, 1<<20)
		if err != nil {
			return n, err
		}
		n += len(records)
	}
}

// codecAlone is what building batches and checking them costs, and how many records that leaves room for.
func codecAlone(r *report, bytes int) error {
	vs := values(bytes)
	batch, n, err := buildBatch(vs, floorBatch)
	if err != nil {
		return err
	}
	perRecord := 0.0 // seconds
	for _, step := range []func() error{
		func() error { _, _, err := buildBatch(vs, floorBatch); return err },
		func() error { return checkBatch(batch, true) },
		func() error { return checkBatch(batch, false) },
		func() error { return checkBatch(batch, false) },
	} {
		took, err := each(step)
		if err != nil {
			return err
		}
		perRecord += took / float64(n)
	}
	label := fmt.Sprintf("producing %s, codec alone (build, check, two followers' CRC)", size(bytes))
	r.add(floorName, label+": CPU", "s/GB", fewer, perRecord*1e9/float64(bytes))
	r.add(floorName, fmt.Sprintf("%s: on %d cores", label, runtime.NumCPU()), "records/s", more, float64(runtime.NumCPU())/perRecord)
	return nil
}

// each returns how many seconds of CPU one call takes, the collection of garbage beside it not counted.
func each(f func() error) (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	own, start, n := threadCPU(), time.Now(), 0
	for ; time.Since(start) < floorFor/4; n++ {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return (threadCPU() - own) / float64(n), nil
}

// held is about as much memory as a broker has.
const held = 100 << 20

// killFloor takes the time from a SIGKILL until a process that was connected with the one that it ended learns of it: nobody can know sooner.
func killFloor(r *report) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	self, err := os.Executable()
	if err != nil {
		return err
	}
	const times = 5
	var sum time.Duration
	for range times {
		took, err := killOnce(l, self)
		if err != nil {
			return err
		}
		sum += took
	}
	r.add(floorName, "SIGKILL of a process with 100 MB until its peer's connection ends", "ms", fewer, sum.Seconds()*1000/times)
	return nil
}

func killOnce(l net.Listener, self string) (time.Duration, error) {
	cmd := exec.Command(self, "-hold", l.Addr().String())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	c, err := l.Accept()
	if err == nil {
		defer func() { _ = c.Close() }()
		_, err = c.Read(make([]byte, 1))
	}
	start := time.Now()
	err = errors.Join(err, cmd.Process.Kill())
	if err == nil {
		_, _ = c.Read(make([]byte, 1))
	}
	took := time.Since(start)
	_ = cmd.Wait()
	return took, err
}

// hold is the other side of killOnce: a process that has memory and a connection, and ends with it.
func hold(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	b := make([]byte, held)
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 1
	}
	if _, err := c.Write(b[:1]); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, c)
	runtime.KeepAlive(b)
	return err
}
