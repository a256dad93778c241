package raftlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/flotilla-log/flotilla/proto/record"
)

const (
	scanChunk  = 64 << 10  // what a scan reads at once,
	wholeChunk = 512 << 10 // and one of a whole segment: more than the largest batches that producers make by default
	entryChunk = 4 << 10   // what the read of one entry begins with
)

var (
	scanBuffers  = sync.Pool{New: func() any { b := make([]byte, scanChunk); return &b }}
	wholeBuffers = sync.Pool{New: func() any { b := make([]byte, wholeChunk); return &b }}
	noBytes      [scanChunk]byte
)

// window reads a file forwards through one buffer.
type window struct {
	file   io.ReaderAt
	limit  int64 // no byte at or behind this is read
	chunk  int   // bytes to read ahead
	pooled *[]byte
	buf    []byte // what is at start
	start  int64
}

func newWindow(file io.ReaderAt, limit int64, chunk int) *window {
	return &window{file: file, limit: limit, chunk: chunk, pooled: buffersOf(chunk).Get().(*[]byte)}
}

func buffersOf(chunk int) *sync.Pool {
	if chunk > scanChunk {
		return &wholeBuffers
	}
	return &scanBuffers
}

// close gives the buffer back; what at returned is gone with it.
func (w *window) close() {
	buffersOf(w.chunk).Put(w.pooled)
	w.pooled, w.buf = nil, nil
}

// at returns n bytes from pos on, valid until the next call. io.ErrUnexpectedEOF means that the limit or the file ends before.
func (w *window) at(pos int64, n int) ([]byte, error) {
	off := pos - w.start
	if off >= 0 && off+int64(n) <= int64(len(w.buf)) {
		return w.buf[off : off+int64(n)], nil
	}
	if pos < 0 || int64(n) > w.limit-pos {
		return nil, io.ErrUnexpectedEOF
	}
	want := int(min(int64(max(n, w.chunk)), w.limit-pos))
	space := *w.pooled
	if want > len(space) {
		space = make([]byte, want)
	}
	have := 0
	if off >= 0 && off < int64(len(w.buf)) {
		have = copy(space, w.buf[off:])
	}
	got, err := w.file.ReadAt(space[have:want], pos+int64(have))
	got += have
	w.buf, w.start = space[:got], pos
	switch {
	case got >= n:
		return space[:n], nil
	case err == nil || errors.Is(err, io.EOF):
		return nil, io.ErrUnexpectedEOF
	}
	return nil, err
}

// handOver says that the bytes last returned are not in the pooled buffer, and nobody else's.
func (w *window) handOver() bool { return len(w.buf) > 0 && &w.buf[0] != &(*w.pooled)[0] }

// badFrame says why the bytes at a position are no frame of the log. It is not yet damage: at the end of the newest segment it may be all right.
type badFrame struct {
	pos    int64
	reason string
}

func (e *badFrame) Error() string {
	return fmt.Sprintf("no valid frame at byte %d: %s", e.pos, e.reason)
}

// frame is what a scanner found.
type frame struct {
	pos           int64
	header        frameHeader
	before, after record.Offset // next offset before and after it
	batch         record.Header // if after > before
	raw           []byte        // the frame, if it was verified; valid until the next call
	sum           uint32        // CRC of the payload, of a frame about to be written; 0: not known
}

// accepted says whether the frame is a batch that readers see.
func (f frame) accepted() bool { return f.after > f.before }

// ts is the timestamp that the index counts for this frame.
func (f frame) ts() int64 {
	if f.accepted() {
		return f.batch.MaxTimestamp
	}
	return noTimestamp
}

// scanner walks over the frames of a segment. Its fields say what the frame at pos has to look like.
type scanner struct {
	w       *window
	saltCRC uint32
	pos     int64
	index   Index
	term    uint64 // at least
	gen     uint8  // at least
	next    record.Offset
}

// scan starts at a frame. Terms and generations before it are not known here, so they are only checked from it on.
func (s *segment) scan(file io.ReaderAt, from point, limit int64, chunk int) *scanner {
	return &scanner{w: newWindow(file, limit, chunk), saltCRC: s.saltCRC, pos: int64(from.pos), index: from.index, next: from.offset}
}

// scanAll starts at the first frame.
func (s *segment) scanAll(file io.ReaderAt, limit int64) *scanner {
	sc := s.scan(file, s.firstPoint(), limit, wholeChunk)
	sc.term = s.header.prevTerm
	return sc
}

func (s *scanner) close() { s.w.close() }

// skip passes over the frame at pos by its header alone, without its CRC and without knowing offsets.
func (s *scanner) skip() (frameHeader, error) {
	h, err := s.readHeader()
	if err != nil {
		return h, err
	}
	s.advance(h)
	return h, nil
}

// read verifies and returns the frame at pos. At the limit the error is io.EOF; for bytes that are no such frame a *badFrame; anything else is an
// I/O error.
func (s *scanner) read() (frame, error) {
	h, err := s.readHeader()
	if err != nil {
		return frame{}, err
	}
	raw, err := s.w.at(s.pos, int(h.size()))
	if err != nil {
		return frame{}, s.bad(err, "it goes on behind the end of the file")
	}
	if !checkFrame(s.saltCRC, raw) {
		return frame{}, &badFrame{s.pos, "the CRC does not match"}
	}
	f := frame{pos: s.pos, header: h, before: s.next, after: s.next, raw: raw}
	if payload := raw[frameHeaderSize : frameHeaderSize+int(h.length)]; IsBatch(h.kind, payload) {
		if b, ok := acceptHeader(payload, h.term, s.next); ok {
			f.batch, f.after = b, b.Next()
		}
	}
	s.next = f.after
	s.advance(h)
	return f, nil
}

// readHeader reads the header at pos and checks that it can be that of the frame expected there.
func (s *scanner) readHeader() (frameHeader, error) {
	if s.pos >= s.w.limit {
		return frameHeader{}, io.EOF
	}
	b, err := s.w.at(s.pos, frameHeaderSize)
	if err != nil {
		return frameHeader{}, s.bad(err, "the file ends inside of its header")
	}
	h := readFrameHeader(b)
	switch {
	case h == frameHeader{}:
		return h, &badFrame{s.pos, "there are only zeros"}
	case h.index != s.index:
		return h, &badFrame{s.pos, fmt.Sprintf("it says index %d where %d belongs", h.index, s.index)}
	case h.term < s.term:
		return h, &badFrame{s.pos, fmt.Sprintf("its term %d is below the term %d before it", h.term, s.term)}
	case h.generation < s.gen:
		return h, &badFrame{s.pos, fmt.Sprintf("it is a leftover of generation %d, and %d has begun", h.generation, s.gen)}
	case h.size() > s.w.limit-s.pos:
		return h, &badFrame{s.pos, fmt.Sprintf("its length of %d goes behind the end of the file", h.length)}
	}
	return h, nil
}

// bad turns the end of the file into a *badFrame and leaves other errors alone.
func (s *scanner) bad(err error, reason string) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &badFrame{s.pos, reason}
	}
	return err
}

func (s *scanner) advance(h frameHeader) {
	s.pos += h.size()
	s.index++
	s.term, s.gen = h.term, h.generation
}

// zeros says whether only zeros follow from pos up to limit; if not, last is the position behind the last other byte.
func zeros(file io.ReaderAt, pos, limit int64) (only bool, last int64, err error) {
	w := newWindow(file, limit, scanChunk)
	defer w.close()
	only, last = true, pos
	for pos < limit {
		n := int(min(scanChunk, limit-pos))
		b, err := w.at(pos, n)
		if err != nil {
			return false, last, err
		}
		if !bytes.Equal(b, noBytes[:n]) {
			only, last = false, pos+int64(len(bytes.TrimRight(b, "\x00")))
		}
		pos += int64(n)
	}
	return only, last, nil
}

// provenDamage looks behind a bad position in the newest segment for a valid later frame which says that the bytes at the position had been
// synced before it was written. Then they were not torn by an interrupted write, but damaged later. It returns the position of that frame.
func (s *scanner) provenDamage(bad int64) (at int64, found bool, err error) {
	for pos := (bad + frameAlign) &^ (frameAlign - 1); pos+frameHeaderSize <= s.w.limit; pos += frameAlign {
		b, err := s.w.at(pos, frameHeaderSize)
		if err != nil {
			return 0, false, ioErrorOnly(err)
		}
		h := readFrameHeader(b)
		if !s.plausible(h, bad, pos) {
			continue
		}
		raw, err := s.w.at(pos, int(h.size()))
		if err != nil {
			return 0, false, ioErrorOnly(err)
		}
		if checkFrame(s.saltCRC, raw) {
			return pos, true, nil
		}
	}
	return 0, false, nil
}

// plausible says whether h, at pos, can be the header of a frame that proves damage at bad: only such a one is worth its CRC.
func (s *scanner) plausible(h frameHeader, bad, pos int64) bool {
	return int64(h.durableEnd) > bad && int64(h.durableEnd) <= pos &&
		h.index > s.index && uint64(h.index-s.index) <= uint64(pos-bad)/frameHeaderSize+1 &&
		h.term >= s.term && h.generation >= s.gen && h.size() <= s.w.limit-pos
}

// ioErrorOnly drops the end of the file.
func ioErrorOnly(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	return err
}
