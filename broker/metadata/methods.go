package metadata

import "github.com/flotilla-log/flotilla/partition/transport"

// Methods of the transport's calls that the metadata node answers. The numbers 0x0100 to 0x01FF are this package's; the broker's own
// calls begin at 0x0200.
const (
	// MethodPropose hands a command to the group's leader.
	MethodPropose transport.Method = 0x0100 + iota
	// MethodProgress asks a member how far it has applied the log, and the leader how far it is committed.
	MethodProgress
	// MethodPledge asks a broker for its promise to be bootstrapped with a certain set of brokers as a certain cluster.
	MethodPledge
	// MethodBootstrap tells a pledged broker to begin.
	MethodBootstrap
)
