package raftlog

import (
	"math"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/proto/record"
)

// IsBatch says whether an entry carries a record batch: a command whose first byte is below 0x80 (the top byte of a base offset is never
// negative). Commands of other formats begin with 0x80 or above.
func IsBatch(t raft.LogType, data []byte) bool {
	return t == raft.LogCommand && len(data) > 0 && data[0] < 0x80
}

// Accept is the rule by which a batch enters the partition: it is whole, its base offset equals next, and its leader epoch is the term of its entry. It returns
// the offset after the entry, which is next again if the entry is no batch or is dead. The log's readers and the state machine both use it, so that they always
// agree.
//
// The epoch matters because hashicorp/raft queues proposals: one that a leader stamped in an earlier term can be appended in a later term of the same broker, with an offset
// that happens to fit, although what it was validated against was lost in between.
func Accept(entry *raft.Log, next record.Offset) (after record.Offset, accepted bool) {
	if !IsBatch(entry.Type, entry.Data) {
		return next, false
	}
	h, ok := acceptHeader(entry.Data, entry.Term, next)
	if !ok {
		return next, false
	}
	return h.Next(), true
}

// acceptHeader is Accept for what IsBatch says yes to.
func acceptHeader(data []byte, term uint64, next record.Offset) (record.Header, bool) {
	h, err := record.ParseHeader(data)
	if err != nil || h.BaseOffset != next || h.LeaderEpoch != int32(term) || h.Size() != len(data) || h.LastOffsetDelta < 0 {
		return h, false
	}
	return h, int64(next) <= math.MaxInt64-1-int64(h.LastOffsetDelta)
}
