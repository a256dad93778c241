package api

import "context"

// Replicas is what operators ask and demand of the replicas of partitions.
type Replicas interface {
	// LogDir describes the replicas on this broker.
	LogDir(ctx context.Context) (LogDir, error)
	// Producers lists the idempotent producers that the leader of a partition remembers; this broker must lead it (CodeNotLeader).
	Producers(ctx context.Context, tp TopicPartition) ([]ProducerState, error)
	// ElectLeaders has partitions led by their preferred leaders (the first of their replicas), and returns when they are, or when ctx ends. Any broker
	// answers. The results are in the order of the request; those for all partitions leave out the ones that needed no election.
	ElectLeaders(ctx context.Context, req ElectRequest) []ElectResult
}

// LogDir is where a broker keeps its replicas. Sizes are bytes; -1: not known.
type LogDir struct {
	Path                    string
	TotalBytes, UsableBytes int64 // of the file system
	Replicas                []LocalReplica
}

// LocalReplica is one replica on a broker's disk.
type LocalReplica struct {
	TopicPartition
	SizeBytes int64
	// Lag is how many records the replica lacks of what its leader has committed; -1 if the leader cannot be asked.
	Lag int64
}

// ProducerState is what a partition remembers of an idempotent producer.
type ProducerState struct {
	ProducerID
	LastSequence  int32
	LastTimestamp int64 // Unix ms
}

// ElectRequest asks for elections.
type ElectRequest struct {
	Partitions []TopicPartition // nil: all
	// Unclean asks for a leader among replicas that may lack acknowledged records. There is none to be had: where a partition has a leader the
	// result is CodeElectionNotNeeded, elsewhere CodeEligibleLeadersNotAvailable.
	Unclean bool
}

// ElectResult is what became of one partition. Err is nil if the preferred leader leads now. CodeElectionNotNeeded: it did already.
// CodePreferredLeaderNotAvailable: it is away, or behind. CodeRequestTimedOut: not yet.
type ElectResult struct {
	TopicPartition
	Err error
}
