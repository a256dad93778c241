package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
)

// errLineTooLong is returned with a line's number by lineReader; the rest of the line has been skipped.
var errLineTooLong = errors.New("line is too long")

// lineReader splits input into lines, in bounded memory.
type lineReader struct {
	r      *bufio.Reader
	max    int
	number int // of the line read last, from 1
	buf    []byte
}

// newLineReader reads lines of at most maxBytes (without the newline) from r, which is decompressed first if it begins as gzip does.
func newLineReader(r io.Reader, maxBytes int) (*lineReader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	head, err := br.Peek(2)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if bytes.Equal(head, []byte{0x1f, 0x8b}) {
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("reading gzip: %w", err)
		}
		br = bufio.NewReaderSize(zr, 64<<10)
	}
	return &lineReader{r: br, max: maxBytes}, nil
}

// next returns the next line without its newline, valid until the call after. It returns io.EOF at the end, and errLineTooLong for a
// line that can be stepped over by calling next again. Any other error is the input's and final.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	tooLong, any := false, false
	for {
		part, err := l.r.ReadSlice('\n')
		any = any || len(part) > 0
		ended := err == nil
		if ended {
			part = part[:len(part)-1]
		}
		if !tooLong && len(l.buf)+len(part) <= l.max {
			l.buf = append(l.buf, part...)
		} else {
			tooLong = true
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && !any:
			return nil, io.EOF
		case err != nil && err != io.EOF:
			return nil, fmt.Errorf("reading input after line %d: %w", l.number, err)
		}
		l.number++
		if tooLong {
			return nil, fmt.Errorf("%w: more than %d bytes", errLineTooLong, l.max)
		}
		return l.buf, nil
	}
}
