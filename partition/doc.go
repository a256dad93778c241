// Package partition is one replica of a replicated partition: a Raft group over the broker's shared transport, with the segment log of
// package raftlog under it.
//
// The leader's sequencer validates each batch, stamps it with the offset and the term, and proposes it; every replica's state machine accepts it
// if the stamp matches (raftlog.Accept) and otherwise ignores it. README.md tells why that is safe, and what happens when it goes wrong.
//
// A group may carry a Machine beside, or instead of, record batches: the coordinator partitions of consumer groups do.
//
// # Concurrency
//
// All methods of Replica may be called from any goroutine. Locks, outermost first: Replica.leadMu, sequencer.mu, state.mu; the watcher list has
// one of its own that is never held while calling out. hashicorp/raft's goroutines call the state machine (its FSM goroutine), the observer (any), and
// the log's OnFailure (any): none of these waits for anything but a short mutex.
package partition
