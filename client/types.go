package client

import (
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Header is one header of a record. A nil Value is null.
type Header = record.HeaderField

// Record is one record, to be produced or as consumed.
type Record struct {
	Topic string
	// Partition and Offset are set by the producer once the record is stored (Offset -1: stored, but the broker no longer knew where),
	// and by the consumer. Partition is an input only with the Manual partitioner.
	Partition int32
	Offset    int64
	// Timestamp has a resolution of a millisecond. The producer sets it to now if it is zero.
	Timestamp time.Time
	// Key and Value may be nil, which is Kafka's null; a null value is a tombstone.
	Key, Value []byte
	Headers    []Header
	// LeaderEpoch is set by the consumer: the epoch of the leader that stored the record.
	LeaderEpoch int32
}

// TopicPartition returns the record's partition.
func (r *Record) TopicPartition() TopicPartition {
	return TopicPartition{Topic: r.Topic, Partition: r.Partition}
}

// TopicPartition names a partition.
type TopicPartition struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

func (tp TopicPartition) String() string { return fmt.Sprintf("%s/%d", tp.Topic, tp.Partition) }

type positionKind int8

const (
	posUnset positionKind = iota
	posEarliest
	posLatest
	posOffset
	posTime
	posFromEnd
)

// Position is where in a partition to begin: Earliest, Latest, AtOffset, AtTime or FromEnd. The zero Position is none of them.
type Position struct {
	kind  positionKind
	value int64
}

// Earliest is the oldest record that is still there.
func Earliest() Position { return Position{kind: posEarliest} }

// Latest is after the last record: only what is stored from now on.
func Latest() Position { return Position{kind: posLatest} }

// AtOffset is the record with that offset.
func AtOffset(offset int64) Position { return Position{kind: posOffset, value: offset} }

// AtTime is the first record with that timestamp or a later one, or Latest if there is none.
func AtTime(t time.Time) Position { return Position{kind: posTime, value: t.UnixMilli()} }

// FromEnd is n records before Latest, or Earliest if there are fewer.
func FromEnd(n int64) Position { return Position{kind: posFromEnd, value: n} }

// check refuses offsets below 0, which no record has.
func (p Position) check(tp TopicPartition) error {
	if p.kind != posOffset || p.value >= 0 {
		return nil
	}
	return &Error{
		Op: "Seek", Code: CodeOffsetOutOfRange, Topic: tp.Topic, Partition: tp.Partition,
		Message: fmt.Sprintf("offset %d is negative: use AtOffset(0), Earliest() or FromEnd(%d)", p.value, max(-p.value, 1)),
	}
}

func (p Position) String() string {
	switch p.kind {
	case posEarliest:
		return "earliest"
	case posLatest:
		return "latest"
	case posOffset:
		return fmt.Sprintf("offset %d", p.value)
	case posTime:
		return "time " + time.UnixMilli(p.value).UTC().Format(time.RFC3339Nano)
	case posFromEnd:
		return fmt.Sprintf("last %d", p.value)
	}
	return "unset"
}
