package record

// Offset numbers the records of a partition, from 0 upwards without gaps between accepted batches. It is not a Raft index: those are
// raftlog.Index.
type Offset int64
