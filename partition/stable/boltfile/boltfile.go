// Package boltfile reads a whole file of bbolt without trusting one byte of it.
//
// bbolt itself checks its two meta pages only. With a damaged page it panics (at opening on a goroutine where nobody can recover), follows a page number in circles, or
// answers with what once was: when the newer meta page is unreadable it goes on from the older one, and the last transaction never happened. So whoever keeps
// something in such a file that must not be lost unnoticed reads it here before bbolt opens it. Read checks
//
//   - both meta pages. A commit writes one of them, of which all that counts is in its first 80 bytes, so also a power failure leaves two valid ones, as long as the disk writes
//     sectors of 512 bytes whole;
//   - that pages say their own number and kind, that no page is reached twice, and that elements fill their page from its beginning without gaps, as bbolt writes them;
//   - that keys ascend, within pages and between them;
//   - that each page is either in use or on the list of free ones, if that is stored.
//
// What it cannot see is bits in keys and values, and, if free pages are not stored, a page number that became the one of a free page with what was stored once: those who
// write the values add checks of their own.
package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// ErrDamaged: the file is not as bbolt writes it.
var ErrDamaged = errors.New("not a sound bbolt file")

// bytesMax bounds the file that is read into memory. The files that this is for have a few megabytes.
const bytesMax = 1 << 30

// bbolt's format, version 2. Numbers have the byte order of the machine.
const (
	magic          = 0xED0CDAED
	version        = 2
	headerSize     = 16 // of a page: id u64, flags u16, count u16, overflow u32
	elementSize    = 16 // leaf: flags, pos, ksize, vsize u32; branch: pos, ksize u32, id u64
	bucketSize     = 16 // of a bucket's value: root page u64 (0: the page follows), sequence u64
	metaSize       = 64
	metaSumAt      = 56
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagMeta       = 0x04
	flagFreelist   = 0x10
	flagBucket     = 0x01 // of a leaf element
	noFreelist     = ^uint64(0)
	pageSizeMin    = 512
	pageSizeMax    = 1 << 16
	depthMax       = 32
	freelistInline = 0xFFFF // count that says that the real one is the first element
)

var order = binary.NativeEndian

// File is what a file holds.
type File struct {
	// TxID is the number of the newest transaction; a file that was only created has 1.
	TxID uint64
	// Buckets are those at the top, by name. Buckets in buckets are damage here.
	Buckets map[string][]Pair
}

// Pair is a key with its value, in the order of keys. Both are parts of one buffer and must not be changed.
type Pair struct{ Key, Value []byte }

// Read reads the file at path. ErrDamaged, or the file system's error.
func Read(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, bytesMax+1))
	if err != nil {
		return nil, err
	}
	if len(data) > bytesMax {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrDamaged, bytesMax)
	}
	return Parse(data)
}

// Parse is Read of bytes. The File refers to data.
func Parse(data []byte) (*File, error) {
	r := &reader{data: data, seen: map[uint64]bool{}}
	f, err := r.file()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return f, nil
}

type meta struct{ pageSize, root, freelist, pages, txID uint64 }

type reader struct {
	data     []byte
	pageSize uint64
	pages    uint64 // page numbers are below this
	seen     map[uint64]bool
}

func (r *reader) file() (*File, error) {
	m, err := r.metas()
	if err != nil {
		return nil, err
	}
	r.pageSize, r.pages = m.pageSize, m.pages
	top := walk{r: r, buckets: true}
	if err := top.page(m.root, nil, nil, 0); err != nil {
		return nil, fmt.Errorf("top: %w", err)
	}
	f := &File{TxID: m.txID, Buckets: map[string][]Pair{}}
	for _, b := range top.out {
		pairs, err := r.bucket(b.Value)
		if err != nil {
			return nil, fmt.Errorf("bucket %q: %w", b.Key, err)
		}
		f.Buckets[string(b.Key)] = pairs
	}
	return f, r.freelist(m.freelist)
}

// metas returns the newer of the two meta pages; both must be valid.
func (r *reader) metas() (meta, error) {
	a, err := r.meta(0)
	if err != nil {
		return meta{}, fmt.Errorf("meta page 0: %w", err)
	}
	b, err := r.meta(a.pageSize)
	switch {
	case err != nil:
		return meta{}, fmt.Errorf("meta page 1: %w", err)
	case a.pageSize != b.pageSize:
		return meta{}, fmt.Errorf("pages of %d and of %d bytes", a.pageSize, b.pageSize)
	case a.txID == b.txID+1:
		return a, nil
	case b.txID == a.txID+1:
		return b, nil
	}
	return meta{}, fmt.Errorf("meta pages of transactions %d and %d", a.txID, b.txID)
}

func (r *reader) meta(at uint64) (m meta, err error) {
	if uint64(len(r.data)) < at+headerSize+metaSize {
		return m, errors.New("the file ends before it")
	}
	b := r.data[at+headerSize:][:metaSize]
	sum := fnv.New64a()
	sum.Write(b[:metaSumAt])
	switch {
	case order.Uint32(b) != magic || order.Uint32(b[4:]) != version:
		return m, errors.New("magic number or version is wrong")
	case order.Uint64(b[metaSumAt:]) != sum.Sum64():
		return m, errors.New("checksum is wrong")
	}
	m = meta{pageSize: uint64(order.Uint32(b[8:])), root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]), pages: order.Uint64(b[40:]), txID: order.Uint64(b[48:])}
	if m.pageSize < pageSizeMin || m.pageSize > pageSizeMax || m.pages > uint64(len(r.data))/m.pageSize {
		return m, fmt.Errorf("%d pages of %d bytes in a file of %d", m.pages, m.pageSize, len(r.data))
	}
	return m, nil
}

// page returns a page's bytes, behind its header, if it is of one of the kinds.
func (r *reader) page(id uint64, kinds uint16) (body []byte, kind, count uint16, err error) {
	if id < 2 || id >= r.pages {
		return nil, 0, 0, fmt.Errorf("there is no page %d", id)
	}
	if r.seen[id] {
		return nil, 0, 0, fmt.Errorf("page %d is reached twice", id)
	}
	p := r.data[id*r.pageSize:]
	overflow := uint64(order.Uint32(p[12:]))
	if overflow >= r.pages-id {
		return nil, 0, 0, fmt.Errorf("page %d: %d more pages", id, overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if r.seen[i] {
			return nil, 0, 0, fmt.Errorf("page %d is reached twice", i)
		}
		r.seen[i] = true
	}
	p = p[:(overflow+1)*r.pageSize]
	kind, count = order.Uint16(p[8:]), order.Uint16(p[10:])
	if order.Uint64(p) != id || kind&kinds == 0 || kind&(kind-1) != 0 {
		return nil, 0, 0, fmt.Errorf("page %d says that it is %d, of kind %#x", id, order.Uint64(p), kind)
	}
	return p[headerSize:], kind, count, nil
}

// bucket reads a bucket out of its value in the page above.
func (r *reader) bucket(v []byte) ([]Pair, error) {
	if len(v) < bucketSize {
		return nil, fmt.Errorf("a bucket of %d bytes", len(v))
	}
	w := walk{r: r}
	p := v[bucketSize:]
	if root := order.Uint64(v); root != 0 {
		if len(p) != 0 {
			return nil, fmt.Errorf("it has page %d and %d bytes", root, len(p))
		}
		err := w.page(root, nil, nil, 0)
		return w.out, err
	}
	if len(p) < headerSize || order.Uint16(p[8:]) != flagLeaf || order.Uint32(p[12:]) != 0 {
		return nil, errors.New("the page in its value is none")
	}
	body := p[headerSize:]
	err := w.leaf(body, order.Uint16(p[10:]), nil, nil)
	size := elementSize * len(w.out)
	for _, e := range w.out {
		size += len(e.Key) + len(e.Value)
	}
	if err == nil && size != len(body) {
		err = fmt.Errorf("%d bytes for elements of %d", len(body), size)
	}
	return w.out, err
}

// walk goes through one tree.
type walk struct {
	r       *reader
	buckets bool // the values are buckets, or else none of them is
	out     []Pair
}

// page reads what is below a page. Keys are at least from (if not nil) and below to (if not nil).
func (w *walk) page(id uint64, from, to []byte, depth int) error {
	if depth > depthMax {
		return errors.New("the tree is too deep")
	}
	body, kind, count, err := w.r.page(id, flagBranch|flagLeaf)
	if err != nil {
		return err
	}
	if kind == flagLeaf {
		if count == 0 && !w.buckets { // an empty bucket has no page
			return fmt.Errorf("page %d: a leaf without elements", id)
		}
		if err := w.leaf(body, count, from, to); err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		return nil
	}
	if err := w.branch(body, count, from, to, depth); err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

func (w *walk) leaf(body []byte, count uint16, from, to []byte) error {
	e := elements{body: body, count: int(count), next: int(count) * elementSize}
	for i := range int(count) {
		at := i * elementSize
		if at+elementSize > len(body) {
			return fmt.Errorf("%d elements", count)
		}
		h := body[at:]
		key, value, err := e.take(at, order.Uint32(h[4:]), order.Uint32(h[8:]), order.Uint32(h[12:]))
		if err != nil {
			return err
		}
		if bucket := order.Uint32(h); bucket > flagBucket || (bucket == flagBucket) != w.buckets {
			return fmt.Errorf("element %d has flags %#x", i, bucket)
		}
		if err := e.inOrder(key, from, to); err != nil {
			return err
		}
		w.out = append(w.out, Pair{key, value})
	}
	return nil
}

func (w *walk) branch(body []byte, count uint16, from, to []byte, depth int) error {
	if count == 0 {
		return errors.New("a branch without elements")
	}
	e := elements{body: body, count: int(count), next: int(count) * elementSize}
	keys, ids := make([][]byte, count), make([]uint64, count)
	for i := range int(count) {
		at := i * elementSize
		if at+elementSize > len(body) {
			return fmt.Errorf("%d elements", count)
		}
		h := body[at:]
		key, _, err := e.take(at, order.Uint32(h), order.Uint32(h[4:]), 0)
		if err != nil {
			return err
		}
		if err := e.inOrder(key, from, to); err != nil {
			return err
		}
		keys[i], ids[i] = key, order.Uint64(h[8:])
	}
	for i, id := range ids {
		until := to
		if i+1 < len(keys) {
			until = keys[i+1]
		}
		if err := w.page(id, keys[i], until, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// elements are those of one page, whose data follow one another behind their array.
type elements struct {
	body  []byte
	count int
	next  int // where the next element's data must begin
	last  []byte
}

// take returns the data of the element at at.
func (e *elements) take(at int, pos, ksize, vsize uint32) (key, value []byte, err error) {
	begin := uint64(at) + uint64(pos)
	end := begin + uint64(ksize) + uint64(vsize)
	if begin != uint64(e.next) || end > uint64(len(e.body)) || ksize == 0 {
		return nil, nil, fmt.Errorf("an element at %d to %d, where %d is expected", begin, end, e.next)
	}
	e.next = int(end)
	mid := begin + uint64(ksize)
	return e.body[begin:mid:mid], e.body[mid:end:end], nil
}

func (e *elements) inOrder(key, from, to []byte) error {
	if e.last != nil && bytes.Compare(e.last, key) >= 0 || from != nil && bytes.Compare(key, from) < 0 || to != nil && bytes.Compare(key, to) >= 0 {
		return fmt.Errorf("key %q is not in order", key)
	}
	e.last = key
	return nil
}

// freelist checks the list of free pages, after all pages in use were seen.
func (r *reader) freelist(id uint64) error {
	if id == noFreelist {
		return nil
	}
	body, _, count16, err := r.page(id, flagFreelist)
	if err != nil {
		return fmt.Errorf("list of free pages: %w", err)
	}
	count := uint64(count16)
	if count == freelistInline && len(body) >= 8 {
		count = order.Uint64(body)
		body = body[8:]
	}
	if count > uint64(len(body))/8 {
		return fmt.Errorf("%d free pages", count)
	}
	last := uint64(1)
	for i := range count {
		free := order.Uint64(body[i*8:])
		if free <= last || free >= r.pages || r.seen[free] {
			return fmt.Errorf("page %d is free and in use, or there is none", free)
		}
		last = free
	}
	// Pages in use are in seen, with the list's own; free ones are others; 0 and 1 are the metas.
	if used := uint64(len(r.seen)); 2+used+count != r.pages {
		return fmt.Errorf("%d pages are in use and %d free, of %d", used, count, r.pages)
	}
	return nil
}
