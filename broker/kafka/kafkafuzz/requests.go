// Package kafkafuzz makes Kafka requests to attack a broker with: valid ones with arbitrary contents, damaged ones, and noise. Its test is the soak that
// `make fuzz-kafka` runs; the seeds of package kafka's fuzz targets come from here too.
package kafkafuzz

import (
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Topic is what requests name where they name a topic that exists, in most cases.
const Topic = "orders"

// names are what strings in requests are, besides nothing and noise.
var names = []string{Topic, "fuzz-group", "consumer", "range", "m-1", "cleanup.policy", "retention.ms", "1", "test-client"}

// Fill gives all fields of a request arbitrary values, of the kind that they should have for the most part. Arrays have up to three elements.
func Fill(req kmsg.Request, r *rand.Rand) {
	version := req.GetVersion()
	f := filler{r: r}
	f.value(reflect.ValueOf(req).Elem(), "")
	req.SetVersion(version)
}

type filler struct {
	r     *rand.Rand
	depth int
}

func (f *filler) value(v reflect.Value, name string) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			return
		}
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() && field.Name != "Version" {
				f.value(v.Field(i), field.Name)
			}
		}
	case reflect.Pointer:
		if f.r.IntN(3) > 0 && f.depth < 4 {
			v.Set(reflect.New(v.Type().Elem()))
			f.value(v.Elem(), name)
		}
	case reflect.Slice:
		f.slice(v, name)
	case reflect.Array:
		for i := range v.Len() {
			v.Index(i).SetUint(uint64(f.r.IntN(3)))
		}
	case reflect.String:
		v.SetString(f.text())
	case reflect.Bool:
		v.SetBool(f.r.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(f.number(v.Type().Bits(), name))
	case reflect.Float64:
		v.SetFloat(f.r.Float64())
	}
}

func (f *filler) slice(v reflect.Value, name string) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		v.SetBytes(f.bytes(name))
		return
	}
	f.depth++
	n := f.r.IntN(4)
	v.Set(reflect.MakeSlice(v.Type(), n, n))
	for i := range n {
		f.value(v.Index(i), name)
	}
	f.depth--
}

func (f *filler) bytes(name string) []byte {
	if name == "Records" && f.r.IntN(8) > 0 {
		return Batch(f.r)
	}
	b := make([]byte, f.r.IntN(40))
	for i := range b {
		b[i] = byte(f.r.Uint32())
	}
	return b
}

func (f *filler) text() string {
	switch f.r.IntN(8) {
	case 0:
		return ""
	case 1:
		return strings.Repeat("x\x00\xff", f.r.IntN(100))
	}
	return names[f.r.IntN(len(names))]
}

// number is mostly one that can be: a partition, an offset, a time to wait.
func (f *filler) number(bits int, name string) int64 {
	switch {
	case f.r.IntN(12) == 0:
		return int64(f.r.Uint64()) >> (64 - bits)
	case strings.Contains(name, "MaxWait"):
		return int64(f.r.IntN(50))
	case strings.Contains(name, "Timeout"):
		return 6000
	case name == "Acks", name == "SessionEpoch", name == "ReplicaID":
		return int64(f.r.IntN(3)) - 1
	case strings.Contains(name, "Bytes"):
		return int64(f.r.IntN(1 << 16))
	}
	return int64(f.r.IntN(5)) - 1
}

// Batch is a record batch that a broker takes, of no producer ID.
func Batch(r *rand.Rand) []byte {
	b := record.NewBuilder(record.BuilderOptions{ProducerID: -1, ProducerEpoch: -1, BaseSequence: -1})
	now := time.Now().UnixMilli() // older ones are deleted as soon as their segment is full
	for range 1 + r.IntN(4) {
		if err := b.Append(record.Record{Key: []byte("k"), Value: make([]byte, r.IntN(200)), Timestamp: now}); err != nil {
			return nil
		}
	}
	out, err := b.Build()
	if err != nil {
		return nil
	}
	return out
}

// Frame is a whole request, with its size in front.
func Frame(req kmsg.Request, correlation int32) []byte {
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("kafkafuzz")).AppendRequest(nil, req, correlation)
}

// Damage changes some bytes of a frame, cuts it or makes it longer. The size in front stays right, but for a few cases.
func Damage(frame []byte, r *rand.Rand) []byte {
	b := append([]byte(nil), frame...)
	for range 1 + r.IntN(4) {
		switch at := 4 + r.IntN(len(b)-3); {
		case at >= len(b):
			b = append(b, byte(r.Uint32()))
		case r.IntN(6) == 0:
			b = b[:at]
		case r.IntN(4) == 0:
			b[at] ^= 1 << r.IntN(8)
		default:
			b[at] = byte(r.Uint32())
		}
		if len(b) < 8 {
			b = append(b, make([]byte, 8)...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	if r.IntN(30) == 0 {
		binary.BigEndian.PutUint32(b, r.Uint32())
	}
	return b
}

// Noise is a frame with a header that can be, and any bytes after it; sometimes it is any bytes from the start.
func Noise(r *rand.Rand, key, version int16) []byte {
	b := make([]byte, 12+r.IntN(200))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if r.IntN(10) == 0 {
		return b
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	binary.BigEndian.PutUint16(b[4:], uint16(key))
	binary.BigEndian.PutUint16(b[6:], uint16(version))
	return b
}
