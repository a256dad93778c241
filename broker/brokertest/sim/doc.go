// Package sim runs a whole cluster inside one process on a virtual clock: real brokers and real clients on a network and on disks in memory, all in
// a bubble of testing/synctest. Faults come from a schedule that a seed decides, clients work meanwhile, and scripts/chaos/checker judges what they did
// and saw. README.md says what is simulated, what is not, how to run and repeat it, and what it found.
//
//	net.go, conn.go, packets.go   the network: latency, cuts in one direction, resets, echoes, power loss
//	disk.go, stores.go            the disks: what was not synced is lost, syncs take time or fail, files rot
//	cluster.go                    machines with a broker each
//	workload.go, groups.go        what clients do
//	plan.go, faults.go            schedules of faults, and how each is brought about
//	run.go                        one schedule from the first start to the verdict
package sim
