package main

import (
	"fmt"
	"math"

	"github.com/dustin/go-humanize"
)

// byteSize is a flag for sizes: a number of bytes, or with a unit as in 64MiB or 1.5GB.
type byteSize int64

func (b *byteSize) String() string {
	if *b > 0 && *b%1024 == 0 {
		return compactIEC(int64(*b))
	}
	return fmt.Sprint(int64(*b))
}

// compactIEC writes whole multiples without loss: 134217728 is 128MiB.
func compactIEC(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	i := 0
	for i < len(units)-1 && n%1024 == 0 {
		n /= 1024
		i++
	}
	return fmt.Sprintf("%d%s", n, units[i])
}

func (b *byteSize) Set(s string) error {
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is not a size: write bytes, or a number with KiB, MiB, GiB (or kB, MB, GB)", s)
	}
	*b = byteSize(n)
	return nil
}

func (b *byteSize) Type() string { return "size" }
