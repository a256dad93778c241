// Package raftlog is the replicated log of one partition on disk: append-only segment files that are the Raft log itself, and checkpoints of the
// state machine beside them. A Log is hashicorp/raft's LogStore, and its Snapshots are raft's SnapshotStore.
//
// # The one rule that readers rest on
//
// A record batch is accepted if its base offset equals the next offset, which is a function of the log's prefix alone. So the log itself knows the
// next offset at every entry (each segment's header carries it for its first one), and ReadBatches leaves dead entries out without any side table.
// Accept is that rule; the state machine has to use the same function.
//
// # Concurrency
//
// Every method of Log may be called from any goroutine at any time. Mutations of the tail (StoreLogs, DeleteRange, installing a checkpoint) exclude
// one another; reads never wait for a disk write, and hold no lock while they read from the disk.
//
// The format, byte by byte, what each crash point leaves, and the limits are in README.md beside this file.
package raftlog
