// Package transport carries all Raft groups of a broker, and calls between brokers, over a few connections
// per pair of brokers.
//
// A Transport listens on one address and dials peers when something is first sent to them. For each group,
// Group returns a raft.Transport; the addresses in Raft configurations are broker IDs as text, resolved at
// every dial, so that a broker may change its IP address. Between two brokers there is, in each direction and
// only when used, one connection per purpose:
//
//   - control: votes, pre-votes, TimeoutNow, claims, which are the word of a broker on all groups that it leads (see claims.go), and raft's own heartbeats of all groups, coalesced into
//     one frame per HeartbeatWindow;
//   - data: AppendEntries with entries or a commit index, of all groups, pipelined (those without entries may wait for
//     HeartbeatWindow, to share a write);
//   - call: broker-to-broker calls (Handle, Call);
//   - snapshot: one short-lived connection per InstallSnapshot;
//   - catch-up: AppendEntries to followers that are far behind, at a bounded rate (see catchup.go).
//
// A large append therefore never delays a heartbeat or a vote, nor a replica that is being built a live append. README.md beside this file has the wire format.
//
// # Bounds
//
// A frame's length is checked before memory is taken for it. A leader has at most MaxInflight requests and
// MaxInflightBytes bytes of one group under way to a follower. On the follower each group has a bounded queue
// and all groups together may hold MaxQueuedBytes of requests that raft has not answered; past that requests
// are refused with ErrBusy, which raft retries with back-off. The reader of a connection never waits for a
// group, so a slow group delays nobody else. Each connection's send queue is bounded in bytes; a full one
// makes the sender wait, which is raft's back-pressure.
//
// # What raft is owed
//
// A reply leaves only after the follower's raft has answered the request. When a connection is lost all requests
// in flight on it fail at once, and raft falls back from pipelined to single-step replication.
//
// # Splitting and shortening
//
// hashicorp/raft bounds an AppendEntries request by the number of entries alone, so a request may be far larger
// than MaxAppendBytes. Outside a pipeline the request's Entries are shortened in place: raft reads the slice again
// after the call to learn how far the follower has come (replication.go, updateLastAppended) and sends the rest
// at once (replicateTo, CHECK_MORE). Inside a pipeline shortening would be safe too (pipelineSend advances nextIndex by
// what is left in the slice) but slow: nothing sends the rest until the next proposal or CommitTimeout. There
// the request travels as several frames instead, each a complete AppendEntries request with its own previous
// entry, and the future completes when the last is answered, with the first refusal if there was one.
//
// # The commit index
//
// The Raft paper (section 5.3, figure 2) sets a follower's commit index to min(leaderCommit, index of last new
// entry). hashicorp/raft v1.7.3 takes the minimum with the follower's own last index instead, so a request
// whose entries end before the follower's stale tail would commit entries of that tail that no quorum ever
// had. Shortening makes such requests common. The transport therefore clamps LeaderCommitIndex to
// PrevLogEntry+len(Entries), on the sending and again on the receiving side, for every request that carries or
// verifies log positions. Nothing is lost by it: the next request says the rest.
package transport
