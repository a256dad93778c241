// Package metadata is the cluster's own state: brokers, topics, partition assignments and the allocation of IDs, replicated
// by one Raft group (group 0) in which every broker takes part, so that every broker reads it locally.
//
//	State     an immutable snapshot; any goroutine may read one for as long as it likes
//	Command   a change, applied by the state machine in the order of the Raft log; pure: no clock, no randomness
//	Node      this broker's member of the group: State, Changed, Propose
//	Identity  broker.json, the file that says which cluster and which incarnation a data directory belongs to
//
// Nothing here decides anything. Package controller turns gossip and requests into commands; the brokers that lead
// partitions report leaders and voters back.
//
// # Replicas and their names
//
// A replica is named by its Raft server ID, "<broker>-<incarnation>-<generation>". The incarnation is that of the
// broker's data directory, the generation counts up within the partition. So a name is used for one set of files only: a
// replica whose disk was lost or damaged never comes back as the same voter, and a broker can tell from the name alone
// whether the files that it holds are those meant. The Raft address of a replica is the broker's ID in decimal.
//
// # Versions
//
// Commands, snapshots and broker.json are JSON behind a format version. Unknown fields are ignored, so that a newer
// release may add some; a newer format version is refused by name. A broker that meets a command of a
// version or kind that it does not know applies nothing more and ends (Config.OnFailure): it would have another state than the others. So no broker
// may propose kinds that the oldest release in the cluster does not know.
package metadata
