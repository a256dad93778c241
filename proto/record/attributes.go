package record

import "fmt"

// Attributes are the flags of a batch.
type Attributes int16

const (
	attrCompression   Attributes = 0x07
	attrLogAppendTime Attributes = 0x08
	attrTransactional Attributes = 0x10
	attrControl       Attributes = 0x20
	attrDeleteHorizon Attributes = 0x40
	attributesKnown              = attrCompression | attrLogAppendTime | attrTransactional | attrControl | attrDeleteHorizon
)

// TimestampType says whose clock a batch's timestamps come from.
type TimestampType int8

// The timestamp types, under the names of message.timestamp.type.
const (
	CreateTime    TimestampType = 0 // each record has the time its producer gave it
	LogAppendTime TimestampType = 1 // all records have the batch's MaxTimestamp, which the leader set
)

func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// Compression is how the records are compressed. The value may be one that Kafka does not know.
func (a Attributes) Compression() Compression { return Compression(a & attrCompression) }

// TimestampType says what the timestamps mean.
func (a Attributes) TimestampType() TimestampType {
	if a&attrLogAppendTime != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// IsControl marks a batch that the brokers wrote for themselves (transaction markers) and that consumers do not show.
func (a Attributes) IsControl() bool { return a&attrControl != 0 }

// IsTransactional marks a batch that belongs to a transaction.
func (a Attributes) IsTransactional() bool { return a&attrTransactional != 0 }

func (a Attributes) withCompression(c Compression) Attributes {
	return a&^attrCompression | Attributes(c)
}

// Compression is a compression type, numbered as in the attributes of a batch.
type Compression int8

// Kafka's compression types.
const (
	None Compression = iota
	Gzip
	Snappy
	LZ4
	Zstd
)

var compressionNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// ParseCompression reads one of Kafka's names: none (or uncompressed), gzip, snappy, lz4, zstd. It fails with ErrUnsupportedCompression.
func ParseCompression(name string) (Compression, error) {
	if name == "uncompressed" {
		return None, nil
	}
	for c, n := range compressionNames {
		if n == name {
			return Compression(c), nil
		}
	}
	return None, fmt.Errorf("%w: %q (want none, gzip, snappy, lz4 or zstd)", ErrUnsupportedCompression, name)
}

// String is Kafka's name of the type.
func (c Compression) String() string {
	if !c.valid() {
		return fmt.Sprintf("compression(%d)", int8(c))
	}
	return compressionNames[c]
}

func (c Compression) valid() bool { return c >= None && c <= Zstd }
