package raftlog

import (
	"time"

	"github.com/flotilla-log/flotilla/proto/record"
)

// InspectOptions say how deep Inspect looks.
type InspectOptions struct {
	// Verify reads every frame and checks its CRC, and every record batch with its own. Without it, and without a callback, only headers, indexes and
	// checkpoints are read.
	Verify bool
	// From and To bound the entries that the callback gets; To 0 means no bound.
	From, To Index
}

// EntryKind says what an entry is for.
type EntryKind string

// The kinds of entries.
const (
	KindBatch         EntryKind = "batch"
	KindCommand       EntryKind = "command"
	KindNoop          EntryKind = "noop"
	KindBarrier       EntryKind = "barrier"
	KindConfiguration EntryKind = "configuration"
	KindOther         EntryKind = "other"
)

// EntryInfo is one entry of the log as the inspection sees it.
type EntryInfo struct {
	File       string     `json:"file"`
	Position   int64      `json:"position"` // of its frame in the file, in bytes
	Index      Index      `json:"index"`
	Term       uint64     `json:"term"`
	Kind       EntryKind  `json:"kind"`
	Bytes      int        `json:"bytes"` // of the payload
	AppendedAt time.Time  `json:"appendedAt"`
	Batch      *BatchInfo `json:"batch,omitempty"` // for KindBatch
	Data       []byte     `json:"-"`               // the payload; valid during the callback only
}

// BatchInfo is what the header of a record batch says.
type BatchInfo struct {
	BaseOffset record.Offset `json:"baseOffset"`
	LastOffset record.Offset `json:"lastOffset"`
	Records    int32         `json:"records"`
	// Accepted is false for a dead entry: its base offset did not match when it was applied, and no reader ever sees it.
	Accepted      bool      `json:"accepted"`
	MaxTimestamp  time.Time `json:"maxTimestamp"`
	Compression   string    `json:"compression"`
	LeaderEpoch   int32     `json:"leaderEpoch"`
	ProducerID    int64     `json:"producerId"`
	ProducerEpoch int16     `json:"producerEpoch"`
	BaseSequence  int32     `json:"baseSequence"`
}

// DamageInfo names a place where bytes are not what was written there.
type DamageInfo struct {
	File     string `json:"file"`
	Position int64  `json:"position"`
	Reason   string `json:"reason"`
}

// SegmentReport describes one segment file.
type SegmentReport struct {
	File         string        `json:"file"`
	FirstIndex   Index         `json:"firstIndex"`
	LastIndex    Index         `json:"lastIndex"`
	BaseOffset   record.Offset `json:"baseOffset"`
	NextOffset   record.Offset `json:"nextOffset"`
	Bytes        int64         `json:"bytes"`     // of header and frames
	FileBytes    int64         `json:"fileBytes"` // with preallocated space
	MaxTimestamp int64         `json:"maxTimestamp"`
	CreatedAt    time.Time     `json:"createdAt"`
	Sealed       bool          `json:"sealed"`
	// Index says "ok", "missing" (it is rebuilt at the next start) or what is wrong with the index file.
	Index string `json:"index"`
}

// CheckpointReport describes one checkpoint file.
type CheckpointReport struct {
	File       string        `json:"file"`
	Index      Index         `json:"index"`
	Term       uint64        `json:"term"`
	NextOffset record.Offset `json:"nextOffset"`
	Installed  bool          `json:"installed"` // it came from a leader
	StateBytes int           `json:"stateBytes"`
	Servers    []string      `json:"servers"` // "id address suffrage"
}

// TornTail is what an interrupted write left at the end of the newest segment. It was never acknowledged, and the next start cuts it off.
type TornTail struct {
	File     string `json:"file"`
	Position int64  `json:"position"`
	Bytes    int64  `json:"bytes"` // up to the last byte that is not zero
	Reason   string `json:"reason"`
}

// Report is what Inspect found in a log's directory.
type Report struct {
	Dir         string             `json:"dir"`
	FirstIndex  Index              `json:"firstIndex"` // 0 if there are no entries
	LastIndex   Index              `json:"lastIndex"`
	FirstOffset record.Offset      `json:"firstOffset"`
	NextOffset  record.Offset      `json:"nextOffset"`
	Entries     int64              `json:"entries"` // that were read; 0 if none had to be
	Batches     int64              `json:"batches"` // accepted ones among them
	Records     int64              `json:"records"` // in these
	DeadBatches int64              `json:"deadBatches"`
	CleanClose  bool               `json:"cleanClose"` // the log was closed in order
	Segments    []SegmentReport    `json:"segments"`
	Checkpoints []CheckpointReport `json:"checkpoints"`
	TornTail    *TornTail          `json:"tornTail,omitempty"`
	// Leftovers are files that an interrupted operation left and the next start removes.
	Leftovers []string     `json:"leftovers,omitempty"`
	Damage    []DamageInfo `json:"damage"`
}

// Healthy says whether a broker would open the log.
func (r *Report) Healthy() bool { return len(r.Damage) == 0 }
