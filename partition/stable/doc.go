// Package stable keeps what the Raft groups of a broker must never forget, their terms and votes, and small
// markers beside them, in one bbolt file for all groups.
//
// The file has raft-boltdb's bucket ("conf"), with the group's ID before each key and checks before each value (sealed.go), but is written here and not through
// raft-boltdb's BoltStore: that commits every key in a transaction of its own (two fsyncs), so a storm of elections, or a
// restart, in which every group writes its term would queue for seconds; and it cannot delete. Here whatever the
// groups want written while one commit is on its way to the disk goes into the next commit together, and a value that
// is stored already is not written again. BenchmarkElectionStorm measures both.
//
// # When the disk is full or fails
//
// hashicorp/raft panics when it cannot store its term, which would take every other group of the broker down too.
// So that write waits while the file system is full. When the store is closed, or has failed in any other way, the
// goroutine that wanted to store a term ends by runtime.Goexit instead: the group stands still, and nothing is
// done in a term that is not on disk. Votes are refused by returning the error, which raft handles.
//
// A failed fsync is final (the page cache can no longer be trusted): the store fails for good and OnFailure is called
// once, for the broker to go down in order.
//
// # Damage
//
// bbolt notices damage in its two meta pages only. Here every value has a CRC-32C that its key is part of, all values together have a sum that each
// commit writes anew, and Open reads the whole file by package boltfile before bbolt may touch it. A flipped bit is harmless (it is in bytes that carry nothing),
// or it is in a value: then that group is damaged, none of its values can be read, and its replica has to be rebuilt under another name; or else
// the file is damaged as a whole and is not opened.
//
// # A file that is lost
//
// A replica whose term and vote are lost must not come back as the same voter: it could vote twice in one term. Has
// tells whether a group is known here; a replica with data but without a trace in this file has to be quarantined.
package stable
