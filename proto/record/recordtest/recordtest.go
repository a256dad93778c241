// Package recordtest builds record batches for the tests of other packages. Its functions panic on errors: in a test they are bugs.
package recordtest

import (
	"fmt"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Timestamp is the time (Unix milliseconds) of the first record of a batch unless Time says otherwise; each further record is one
// millisecond later.
const Timestamp = 1_700_000_000_000

// Limit is enough to decompress whatever this package builds.
const Limit = 256 << 20

type config struct {
	opts  record.BuilderOptions
	time  int64
	key   func(i int) []byte
	value func(i int) []byte
}

// Option changes a batch to be built.
type Option func(*config)

// Producer makes the batch an idempotent producer's, with the sequence number of its first record. id must be above 0.
func Producer(id int64, epoch int16, sequence int32) Option {
	return func(c *config) {
		c.opts.ProducerID, c.opts.ProducerEpoch, c.opts.BaseSequence = id, epoch, sequence
	}
}

// Compression compresses the records.
func Compression(t record.Compression) Option {
	return func(c *config) { c.opts.Compression = t }
}

// At stamps a base offset and a leader epoch.
func At(base record.Offset, leaderEpoch int32) Option {
	return func(c *config) { c.opts.BaseOffset, c.opts.LeaderEpoch = base, leaderEpoch }
}

// Attributes sets attributes beside the compression, say 0x20 for a control batch.
func Attributes(a record.Attributes) Option {
	return func(c *config) { c.opts.Attributes = a }
}

// Time sets the time of the first record, Unix milliseconds.
func Time(ms int64) Option {
	return func(c *config) { c.time = ms }
}

// Keys gives record i the key key(i).
func Keys(key func(i int) []byte) Option {
	return func(c *config) { c.key = key }
}

// Values gives record i the value value(i).
func Values(value func(i int) []byte) Option {
	return func(c *config) { c.value = value }
}

// Batch builds one batch of n records whose values have size bytes each: the record's number, cut or filled up with letters that
// compress a little.
func Batch(n, size int, opts ...Option) []byte {
	c := config{time: Timestamp, value: func(i int) []byte { return Value(i, size) }}
	for _, o := range opts {
		o(&c)
	}
	b := record.NewBuilder(c.opts)
	for i := range n {
		r := record.Record{Timestamp: c.time + int64(i), Value: c.value(i)}
		if c.key != nil {
			r.Key = c.key(i)
		}
		must(b.Append(r))
	}
	batch, err := b.Build()
	must(err)
	return batch
}

// Strings builds one batch with a record for each value.
func Strings(values []string, opts ...Option) []byte {
	return Batch(len(values), 0, append([]Option{Values(func(i int) []byte { return []byte(values[i]) })}, opts...)...)
}

// words make values that compress about as well as JSON does.
var words = [...]string{"origin", "destination", "delay", "distance", "carrier", "flight", "tail", "date"}

// Value is the value of record i in a Batch.
func Value(i, size int) []byte {
	v := make([]byte, 0, size+16)
	v = fmt.Appendf(v, "%d", i)
	for x := uint32(i) + 1; len(v) < size; {
		x = x*1664525 + 1013904223
		v = append(append(v, ' '), words[x>>29]...)
	}
	return v[:size]
}

// Records decodes one whole batch.
func Records(batch []byte) []record.Record {
	rs, err := record.Decode(batch, Limit)
	must(err)
	return rs
}

// ValuesOf returns the values of the records of any number of concatenated batches.
func ValuesOf(batches []byte) []string {
	var out []string
	for len(batches) > 0 {
		batch, rest, err := record.Next(batches)
		must(err)
		for _, r := range Records(batch) {
			out = append(out, string(r.Value))
		}
		batches = rest
	}
	return out
}

// Corrupt returns a copy of the batch with one bit of its records flipped, so that the CRC no longer matches.
func Corrupt(batch []byte) []byte {
	c := append([]byte(nil), batch...)
	c[len(c)-1] ^= 1
	return c
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
