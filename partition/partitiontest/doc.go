// Package partitiontest runs clusters of partition replicas inside a test: the real replica, raft and transport over loopback
// sockets, with disks in memory that can lose power and a network whose links can be cut.
//
//	c := partitiontest.New(t, partitiontest.Options{Brokers: 3})
//	leader := c.Leader(1)
//	leader.Replica(1).Append(...)
//	c.Isolate(leader)          // silence, not a closed connection
//	next := c.Leader(1, c.Others(leader)...)
//	c.Heal()
//	c.CrashAll(rng)            // power loss everywhere
//	c.RestartAll()
//	c.EnsureSame(1)
//
// The verbs fail the test when what they wait for does not come. Nothing here sleeps for a fixed time.
package partitiontest
