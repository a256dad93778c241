package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// restoreBytesPerSecond is the least speed at which a follower is expected to restore a snapshot.
const restoreBytesPerSecond = 4 << 20

// InstallSnapshot implements raft.Transport. The snapshot has a connection of its own, which ends with it.
func (g *Group) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	err := checkNames(args.ID, args.Addr, args.Leader)
	if err == nil {
		err = g.installSnapshot(id, target, args, resp, data)
	}
	if err != nil {
		return g.failure("snapshot", target, err)
	}
	return nil
}

func (g *Group) installSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	c, err := g.t.dial(target, purposeSnapshot)
	if err != nil {
		return err
	}
	defer g.t.untrack(c.nc)
	ended := make(chan struct{})
	defer close(ended)
	if !g.goWatch(c.nc, ended) {
		return ErrGroupClosed
	}
	if err := g.streamSnapshot(c.nc, header{group: g.id, target: serverHash(id)}, args, data); err != nil {
		return err
	}
	return g.snapshotReply(c, args.Size, resp)
}

// goWatch cuts the connection when the group closes.
func (g *Group) goWatch(nc net.Conn, ended <-chan struct{}) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return false
	}
	g.wg.Add(1)
	go func() {
		defer g.wg.Done()
		select {
		case <-g.closed:
			nc.Close()
		case <-ended:
		}
	}()
	return true
}

// streamSnapshot sends the request and exactly args.Size bytes.
func (g *Group) streamSnapshot(nc net.Conn, h header, args *raft.InstallSnapshotRequest, data io.Reader) error {
	e, pooled := newEncoder(256 + len(args.Configuration))
	e.snapshotRequest(args)
	h.kind = kindSnapshot
	if err := g.writeFrame(nc, seal(h, e, pooled)); err != nil {
		return err
	}
	h.kind = kindSnapshotData
	chunk := make([]byte, snapshotChunk)
	for left := args.Size; left > 0; {
		n, err := io.ReadFull(data, chunk[:min(left, snapshotChunk)])
		if err != nil {
			return fmt.Errorf("reading the snapshot, %d bytes before its end: %w", left, noEOF(err))
		}
		if err := g.writeFrame(nc, bytesFrame(h, chunk[:n])); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

func (g *Group) writeFrame(nc net.Conn, f *frame) error {
	defer f.release()
	_ = nc.SetWriteDeadline(time.Now().Add(g.t.cfg.SnapshotTimeout))
	if _, err := nc.Write(f.bufs[0]); err != nil {
		return fmt.Errorf("%w: %w", ErrConnLost, err)
	}
	return nil
}

// snapshotReply waits until the follower has restored the snapshot.
func (g *Group) snapshotReply(c *conn, size int64, resp *raft.InstallSnapshotResponse) error {
	patience := g.t.cfg.SnapshotTimeout + time.Duration(size/restoreBytesPerSecond)*time.Second
	_ = c.nc.SetReadDeadline(time.Now().Add(patience))
	h, payload, err := readFrame(c.br, maxControlFrame)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", ErrConnLost, err)
	case h.kind == kindError:
		return decodeError(h, payload)
	case h.kind != kindSnapshotReply:
		return fmt.Errorf("%w: reply of kind %d to a snapshot", errMalformed, h.kind)
	}
	d := &decoder{b: payload}
	rh, term, success := d.voteReply()
	if err := d.end(); err != nil {
		return err
	}
	*resp = raft.InstallSnapshotResponse{RPCHeader: rh, Term: term, Success: success}
	return nil
}

// serveSnapshot hands one snapshot to its group. raft's main goroutine reads the data from the connection itself; this one
// waits for raft's answer.
func (t *Transport) serveSnapshot(nc net.Conn, br *bufio.Reader, from raft.ServerAddress) {
	_ = nc.SetReadDeadline(time.Now().Add(t.cfg.SnapshotTimeout))
	h, payload, err := readFrame(br, maxConfigBytes+maxControlFrame)
	if err != nil || h.kind != kindSnapshot {
		t.log.Warn("no snapshot on a snapshot connection", "peer", from, "kind", h.kind, "error", err)
		return
	}
	answer := make(chan *frame, 1)
	req, err := decodeSnapshotRequest(payload, t.cfg.MaxSnapshotBytes)
	if err == nil {
		err = checkSender(from, req.Addr)
	}
	if err != nil {
		t.log.Warn("refused a snapshot", "peer", from, "group", h.group, "error", err)
		answer <- errorFrame(h, codeRaft, 0, err.Error())
	} else if g := t.group(h.group); g != nil && g.meant(h.target) && g.opts.HasEntry != nil && g.opts.HasEntry(req.LastLogIndex, req.LastLogTerm) {
		// What a snapshot covers is committed, so the leader counts nothing new by this.
		answer <- encodeReply(h, &raft.InstallSnapshotResponse{RPCHeader: g.header(), Term: req.Term, Success: true})
	} else {
		s := newServed(h, req, len(payload), answerChan(answer))
		s.rpc.Reader = &snapshotReader{nc: nc, br: br, left: req.Size, pause: t.cfg.SnapshotTimeout}
		t.deliver(s)
	}
	t.answerSnapshot(nc, <-answer)
}

// answerChan passes the one reply on.
type answerChan chan<- *frame

func (a answerChan) post(f *frame) { a <- f }

// answerSnapshot writes the reply. It reads on until the peer closes, for a moment: closing first, with data unread, would make
// TCP throw the reply away.
func (t *Transport) answerSnapshot(nc net.Conn, f *frame) {
	defer f.release()
	_ = nc.SetDeadline(time.Now().Add(t.cfg.ControlTimeout))
	if _, err := nc.Write(f.bufs[0]); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, nc)
}

// snapshotReader presents the data frames of a snapshot as a stream, ending after the promised size.
type snapshotReader struct {
	nc    net.Conn
	br    *bufio.Reader
	chunk []byte
	left  int64 // bytes not yet received
	pause time.Duration
	err   error
}

// Read implements io.Reader. raft's main goroutine waits in it, at most SnapshotTimeout for each frame.
func (r *snapshotReader) Read(b []byte) (int, error) {
	if len(r.chunk) == 0 {
		if err := r.next(); err != nil {
			return 0, err
		}
	}
	n := copy(b, r.chunk)
	r.chunk = r.chunk[n:]
	return n, nil
}

func (r *snapshotReader) next() error {
	switch {
	case r.err != nil:
		return r.err
	case r.left == 0:
		return io.EOF
	}
	_ = r.nc.SetReadDeadline(time.Now().Add(r.pause))
	h, payload, err := readFrame(r.br, snapshotChunk)
	switch {
	case err != nil:
		r.err = fmt.Errorf("snapshot: %w", noEOF(err))
	case h.kind != kindSnapshotData || len(payload) == 0 || int64(len(payload)) > r.left:
		r.err = fmt.Errorf("%w: frame of kind %d with %d bytes within a snapshot", errMalformed, h.kind, len(payload))
	default:
		r.chunk = payload
		r.left -= int64(len(payload))
	}
	return r.err
}
