package record

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// zstdEncoder is shared: EncodeAll may be called concurrently.
var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	// A window of 1 MiB is as much as a usual batch has; the options are constants and cannot fail.
	e, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true), zstd.WithEncoderCRC(false), zstd.WithZeroFrames(true))
	if err != nil {
		panic(err)
	}
	return e
})

// zstdWindowBits is the window that every decoder accepts, 8 MiB: all that producers use below level 20.
const zstdWindowBits = 23

// A block has four bytes at least and gives 128 KiB at most.
const zstdBlockMin, zstdBlockMax = 4, 128 << 10

// zstdDecoders hold one decoder for each power of two as limit, made when first needed: zstd takes its limit at creation only, and
// takes no window larger than that.
var zstdDecoders [32]struct {
	once sync.Once
	dec  *zstd.Decoder
}

func zstdDecoder(limit int) *zstd.Decoder {
	i := min(max(bits.Len(uint(max(limit, 1)-1)), zstdWindowBits), len(zstdDecoders)-1)
	d := &zstdDecoders[i]
	d.once.Do(func() { d.dec = newZstdDecoder(zstd.WithDecoderMaxMemory(1 << i)) })
	return d.dec
}

// zstdWideDecoder takes any window and decodes into the capacity that it is given.
var zstdWideDecoder = sync.OnceValue(func() *zstd.Decoder { return newZstdDecoder(zstd.WithDecodeAllCapLimit(true)) })

func newZstdDecoder(opt zstd.DOption) *zstd.Decoder {
	d, err := zstd.NewReader(nil, opt, zstd.WithDecoderMaxWindow(math.MaxInt32), zstd.WithDecoderLowmem(true), zstd.WithDecoderConcurrency(0))
	if err != nil { // the options are constants
		panic(err)
	}
	return d
}

// decodeZstd may return more than the limit, which Decompress refuses.
func decodeZstd(b []byte, limit int) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return nil, fmt.Errorf("%w: zstd: %w", ErrCorrupt, unwrapEOF(err))
	}
	// DecodeAll allocates what the first frame claims.
	possible := (len(b)/zstdBlockMin + 1) * zstdBlockMax
	if h.HasFCS && h.FrameContentSize > uint64(possible) {
		return nil, fmt.Errorf("%w: zstd: %d bytes cannot hold %d", ErrCorrupt, len(b), h.FrameContentSize)
	}
	dec, out := zstdDecoder(limit), []byte(nil)
	if !h.SingleSegment && h.WindowSize > uint64(max(limit, 1<<zstdWindowBits)) {
		dec, out = zstdWideDecoder(), make([]byte, 0, min(possible, max(limit, 1)))
	}
	out, err := dec.DecodeAll(b, out)
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return nil, fmt.Errorf("%w: zstd decompresses to more than %d bytes", ErrTooLarge, limit)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: zstd: %w", ErrCorrupt, unwrapEOF(err))
	}
	return out, nil
}
