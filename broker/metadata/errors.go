package metadata

import "errors"

// Errors of this package. Commands that cannot be applied fail with *api.Error instead, ready for clients.
var (
	// ErrNoLeader: the metadata group had no leader, or none that could be reached, until the context ended. Nothing was proposed. Retry.
	ErrNoLeader = errors.New("metadata: no leader")
	// ErrOutcomeUnknown: the context ended while a proposal was under way; it may or may not be applied.
	ErrOutcomeUnknown = errors.New("metadata: outcome unknown")
	// ErrClosed: the node is closed or closing.
	ErrClosed = errors.New("metadata: closed")
	// ErrNotLeader: only the leader of the metadata group can do this.
	ErrNotLeader = errors.New("metadata: not the leader")
	// ErrMalformed: bytes from a peer or the disk make no sense.
	ErrMalformed = errors.New("metadata: malformed")
	// ErrNewerFormat: written by a newer release. Upgrade this broker.
	ErrNewerFormat = errors.New("written by a newer release: upgrade this broker")
	// ErrClusterMismatch: the data directory, or a peer, belongs to another cluster. Correct the data directory or the addresses to join.
	ErrClusterMismatch = errors.New("metadata: belongs to another cluster")
	// ErrBrokerMismatch: the data directory belongs to another broker ID.
	ErrBrokerMismatch = errors.New("the data directory belongs to another broker: start it with that ID, or give this broker its own directory")
	// ErrMetadataLost: broker.json says that the broker took part in the metadata group, but the group's files are gone. A member that forgot
	// its votes must not come back: empty the whole data directory, and the broker joins as a new incarnation.
	ErrMetadataLost = errors.New("metadata: files are missing")
	// ErrDamaged: the group's log, snapshots, term or vote do not have the bits that were stored. A member that may have forgotten what it acknowledged, or whom it
	// voted for, must not come back: empty the whole data directory, and the broker joins as a new incarnation, whose replicas are rebuilt from the others.
	ErrDamaged = errors.New("metadata: damaged")
	// ErrConfigurationNotStored: this broker led the group, and could not write down a change of its members; raft has it in memory all the same. Start the broker again.
	ErrConfigurationNotStored = errors.New("metadata: a change of the group's members could not be stored, so this broker has to be started again")
	// ErrPledged: the broker has promised its first vote to another attempt at bootstrapping.
	ErrPledged = errors.New("metadata: pledged to another bootstrap")
)
