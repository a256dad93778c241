package sim

import "time"

// scenarios are schedules with a name. Each belongs to a bug that was found once, by the simulation, by scripts/chaos or by a test, and would show it again, or
// to a fault that a change of the write path must survive. The README says which is which.
// A schedule's place is its seed in TestScenarios, unless it has one: new ones come last.
var scenarios = []Plan{
	scenario("wipe-leader", fast, Step{At: 500 * milli, Fault: "wipe", Victim: "leader:2", For: 100 * milli}),
	// A producer in backoff with a batch that has lingered long enough: time stands still if it spins.
	scenario("backoff", fast,
		Step{At: 300 * milli, Fault: "restart", Victim: "leader:0", For: 200 * milli},
		Step{At: 1500 * milli, Fault: "kill-all", For: 500 * milli}),
	// A leader whose fsync is under way while followers have the entries already: it comes back without them.
	scenario("unsynced-leader", slow,
		Step{At: 200 * milli, Fault: "slow-power", Victim: "leader:0", For: 800 * milli, Amount: 60},
		Step{At: 1500 * milli, Fault: "slow-power", Victim: "leader:1", For: 600 * milli, Amount: 30},
		Step{At: 2600 * milli, Fault: "slow-power", Victim: "leader:2", For: 600 * milli, Amount: 120},
		Step{At: 3600 * milli, Fault: "slow-power", Victim: "leader:0", For: 400 * milli, Amount: 20}),
	// The same, and then the others lose what they had not synced, too.
	scenario("unsynced-all", slow,
		Step{At: 300 * milli, Fault: "slow-disk", Victim: "1", For: 3 * second, Amount: 40},
		Step{At: 310 * milli, Fault: "slow-disk", Victim: "2", For: 3 * second, Amount: 40},
		Step{At: 320 * milli, Fault: "slow-disk", Victim: "3", For: 3 * second, Amount: 40},
		Step{At: 900 * milli, Fault: "power-two", Victim: "leader:0", For: 200 * milli},
		Step{At: 2200 * milli, Fault: "power-all", For: 200 * milli},
		Step{At: 3500 * milli, Fault: "power-all", For: 100 * milli}),
	scenario("power-all-often", fast,
		Step{At: 300 * milli, Fault: "power-all", For: 100 * milli},
		Step{At: 1300 * milli, Fault: "power-all", For: 50 * milli},
		Step{At: 2200 * milli, Fault: "power-all", For: 300 * milli},
		Step{At: 3900 * milli, Fault: "power-all", For: 100 * milli}),
	// One producer's batches in raft's queue through a cycle of leadership (partition's README, "The rule", 5).
	scenario("leadership-cycle", slow,
		Step{At: 200 * milli, Fault: "isolate-peers", Victim: "leader:0", For: 700 * milli},
		Step{At: 1200 * milli, Fault: "isolate-peers", Victim: "leader:0", For: 500 * milli},
		Step{At: 2000 * milli, Fault: "mute", Victim: "leader:0", For: 600 * milli},
		Step{At: 3000 * milli, Fault: "freeze", Victim: "leader:0", For: 900 * milli},
		Step{At: 4200 * milli, Fault: "flap", Victim: "leader:0", For: 700 * milli}),
	// A deposed leader that does not know it must not say where a partition ends.
	scenario("stale-end", fast,
		Step{At: 300 * milli, Fault: "isolate-peers", Victim: "leader:0", For: 2 * second},
		Step{At: 2800 * milli, Fault: "deafen", Victim: "leader:1", For: 2 * second}),
	scenario("frozen-leader", fast,
		Step{At: 300 * milli, Fault: "freeze", Victim: "leader:0", For: 3 * second},
		Step{At: 3900 * milli, Fault: "freeze", Victim: "coordinator", For: 1500 * milli}),
	// A broker that lost its disk must not vote as the one that it was, whoever else goes down before it is rebuilt.
	scenario("lost-disk-votes", fast,
		Step{At: 500 * milli, Fault: "wipe", Victim: "1", For: 50 * milli},
		Step{At: 700 * milli, Fault: "power", Victim: "leader:0", For: 300 * milli},
		Step{At: 1800 * milli, Fault: "power", Victim: "leader:1", For: 300 * milli},
		Step{At: 2800 * milli, Fault: "wipe", Victim: "1", For: 50 * milli},
		Step{At: 3000 * milli, Fault: "power-all", For: 100 * milli}),
	// A follower that cannot write is not to be given a snapshot, which would empty its log.
	scenario("full-follower", fast,
		Step{At: 200 * milli, Fault: "full-disk", Victim: "2", For: 3 * second},
		Step{At: 2500 * milli, Fault: "power", Victim: "leader:0", For: 500 * milli},
		Step{At: 3600 * milli, Fault: "power-all", For: 100 * milli}),
	// A follower of the metadata group that could not write, and lacks entries by the time it can: its leader has to go back to where it is.
	scenario("full-metadata", [2]int{1, 9},
		Step{At: 137 * milli, Fault: "full-disk", Victim: "3", For: 1058 * milli},
		Step{At: 241 * milli, Fault: "slow-disk", Victim: "3", For: 2 * second, Amount: 29},
		Step{At: 763 * milli, Fault: "delay", Victim: "1", For: 2458 * milli, Amount: 212},
		Step{At: 806 * milli, Fault: "slow-power", Victim: "leader:0", For: 560 * milli, Amount: 16},
		Step{At: 881 * milli, Fault: "wipe", Victim: "1", For: 102 * milli}),
	// A disk that fails a sync keeps showing what it never wrote; the power failure afterwards shows the truth.
	scenario("lying-disk", slow,
		Step{At: 300 * milli, Fault: "fail-sync", Victim: "leader:0", For: 700 * milli},
		Step{At: 1600 * milli, Fault: "power", Victim: "leader:0", For: 100 * milli},
		Step{At: 2500 * milli, Fault: "fail-sync", Victim: "2", For: 500 * milli},
		Step{At: 3300 * milli, Fault: "power-all", For: 100 * milli}),
	scenario("rot", fast,
		Step{At: 1500 * milli, Fault: "flip", Victim: "2", Amount: 3},
		Step{At: 2000 * milli, Fault: "power", Victim: "2", For: 300 * milli},
		Step{At: 3000 * milli, Fault: "flip-down", Victim: "2", For: 300 * milli, Amount: 3},
		Step{At: 4000 * milli, Fault: "delete-down", Victim: "2", For: 200 * milli, Amount: 2}),
	scenario("echo", fast,
		Step{At: 100 * milli, Fault: "echo", For: 4 * second, Amount: 60},
		Step{At: 1000 * milli, Fault: "reset", Victim: "leader:0"},
		Step{At: 1500 * milli, Fault: "power", Victim: "leader:1", For: 200 * milli},
		Step{At: 2500 * milli, Fault: "reset", Victim: "leader:2"},
		Step{At: 3000 * milli, Fault: "kill", Victim: "leader:0", For: 200 * milli}),
	scenario("move-under-fire", fast,
		Step{At: 100 * milli, Fault: "decommission", Victim: "1", For: 5 * second},
		Step{At: 1500 * milli, Fault: "power", Victim: "leader:0", For: 400 * milli},
		Step{At: 2500 * milli, Fault: "slow-power", Victim: "leader:1", For: 600 * milli, Amount: 30},
		Step{At: 3500 * milli, Fault: "isolate-peers", Victim: "controller", For: 1 * second}),
	// A controller whose clock is set back soon after it has begun must not wait until the clock is where it was before it repairs anything.
	scenario("clock-of-controller", fast,
		Step{At: 200 * milli, Fault: "power", Victim: "controller", For: 200 * milli},
		Step{At: 1500 * milli, Fault: "clock", Victim: "controller", Amount: -7200},
		Step{At: 1700 * milli, Fault: "wipe", Victim: "2", For: 100 * milli}),
	rough(scenario("killed-while-starting", slow,
		Step{At: 300 * milli, Fault: "kill-start", Victim: "leader:0", For: 100 * milli, Amount: 40},
		Step{At: 1000 * milli, Fault: "kill-start", Victim: "controller", For: 100 * milli, Amount: 100},
		Step{At: 1100 * milli, Fault: "kill-start", Victim: "leader:1", For: 100 * milli, Amount: 150},
		Step{At: 2000 * milli, Fault: "power-all", For: 50 * milli},
		Step{At: 2060 * milli, Fault: "kill-start", Victim: "1", For: 50 * milli, Amount: 60},
		Step{At: 2070 * milli, Fault: "kill-start", Victim: "2", For: 50 * milli, Amount: 60})),
	// A bootstrap of a replica that waits for space for its term, while its broker ends.
	scenario("full-bootstrap", fast,
		Step{At: 200 * milli, Fault: "full-disk", Victim: "2", For: 2 * second},
		Step{At: 300 * milli, Fault: "create-topic", Amount: 3},
		Step{At: 800 * milli, Fault: "kill", Victim: "2", For: 300 * milli},
		Step{At: 1500 * milli, Fault: "restart", Victim: "2", For: 100 * milli}),
	scenario("rotten-votes", fast,
		Step{At: 600 * milli, Fault: "rot-votes", Victim: "2", For: 100 * milli},
		Step{At: 1500 * milli, Fault: "power", Victim: "leader:0", For: 200 * milli},
		Step{At: 2500 * milli, Fault: "rot-votes", Victim: "2", For: 100 * milli},
		Step{At: 3000 * milli, Fault: "power", Victim: "leader:1", For: 200 * milli}),
	scenario("rotten-metadata", fast,
		Step{At: 600 * milli, Fault: "rot-metadata", Victim: "3", For: 100 * milli},
		Step{At: 2000 * milli, Fault: "power", Victim: "controller", For: 200 * milli},
		Step{At: 3000 * milli, Fault: "rot-metadata", Victim: "3", For: 100 * milli}),
	scenario("clocks", fast,
		Step{At: 100 * milli, Fault: "clock", Victim: "1", Amount: 7200},
		Step{At: 200 * milli, Fault: "clock", Victim: "2", Amount: 3600},
		Step{At: 900 * milli, Fault: "power", Victim: "leader:0", For: 200 * milli},
		Step{At: 1500 * milli, Fault: "clock", Victim: "leader:1", Amount: 7200},
		Step{At: 2000 * milli, Fault: "power", Victim: "coordinator", For: 200 * milli}),
	// A file whose version has a flipped bit is damaged, not a later release's: the replica is rebuilt.
	scenario("flipped-version", fast, Step{At: 1500 * milli, Fault: "flip-version", Victim: "2", For: 100 * milli, Amount: 6}),
	// A broker ends while what its clients produce has no outcome, as there is no quorum: it must not wait for one.
	scenario("killed-without-quorum", fast,
		Step{At: 300 * milli, Fault: "isolate-peers", Victim: "leader:0", For: 2 * second},
		Step{At: 800 * milli, Fault: "kill", Victim: "leader:0", For: 500 * milli}),
	// Transfers of leadership wait behind a sync in raft's queue when their replicas are closed: raft never answers them.
	scenario("killed-while-stopping", fast,
		Step{At: 300 * milli, Fault: "stall-disk", Victim: "1", For: 1 * second},
		Step{At: 350 * milli, Fault: "restart", Victim: "1", For: 100 * milli},
		Step{At: 500 * milli, Fault: "kill", Victim: "1", For: 100 * milli},
		Step{At: 1500 * milli, Fault: "stall-disk", Victim: "2", For: 1 * second},
		Step{At: 1550 * milli, Fault: "restart", Victim: "2", For: 100 * milli},
		Step{At: 1700 * milli, Fault: "kill", Victim: "2", For: 100 * milli}),
	// A broker starts while none of its peers has power, and waits for all of them at the same time.
	scenario("start-alone", fast,
		Step{At: 300 * milli, Fault: "kill", Victim: "1", For: 300 * milli},
		Step{At: 400 * milli, Fault: "power", Victim: "2", For: 6 * second},
		Step{At: 400 * milli, Fault: "power", Victim: "3", For: 6 * second}),
	// Leaders on broker 2 fail when 1, which lacks entries, wants them, and have it stand in vain. Then 3 has all of them, in earlier terms than the one that 1 is in.
	scenario("longest-log", fast,
		Step{At: 50 * milli, Fault: "isolate-peers", Victim: "1", For: 2700 * milli},
		Step{At: 2500 * milli, Fault: "kill", Victim: "3", For: 1 * second},
		Step{At: 2500 * milli, Fault: "flip", Victim: "2", Amount: 8},
		Step{At: 2510 * milli, Fault: "kill", Victim: "2", For: 100 * milli}),
	// A broker loses its disk while another joins, and a third is drained: replicas are wanted again on brokers that still have voters from before.
	with(4, scenario("wanted-again", fast,
		Step{At: 1533 * milli, Fault: "wipe", Victim: "4", For: 349 * milli},
		Step{At: 1859 * milli, Fault: "decommission", Victim: "2", For: 3141 * milli})),
	// Leaders cannot store that a fresh replica joins: raft must not go on as if they had.
	scenario("full-while-moving", [2]int{5, 20},
		Step{At: 1344 * milli, Fault: "wipe", Victim: "2", For: 101 * milli},
		Step{At: 1680 * milli, Fault: "full-disk", Victim: "leader:0", For: 300 * milli},
		Step{At: 1700 * milli, Fault: "full-disk", Victim: "leader:1", For: 300 * milli}),
	// A leader moves its partition on while a voter is down, and loses its files: that voter must vote for one that it does not know as a voter.
	seeded(1, scenario("older-configuration", [2]int{1, 5},
		Step{At: 1035 * milli, Fault: "decommission", Victim: "2", For: 3709 * milli},
		Step{At: 1208 * milli, Fault: "restart", Victim: "3", For: 506 * milli},
		Step{At: 1560 * milli, Fault: "delete-down", Victim: "1", For: 143 * milli, Amount: 3})),
	// A follower whose disk fails syncs has more entries than it could acknowledge, and its leader has nothing before them but a snapshot of one that is there.
	// So little is written, and for so short a time, that the leader's snapshot is not further on than that.
	sparse(3010*milli, scenario("snapshot-of-what-is-there", fast,
		Step{At: 117 * milli, Fault: "fail-sync", Victim: "controller", For: 1386 * milli},
		Step{At: 1072 * milli, Fault: "mute", Victim: "controller", For: 698 * milli},
		Step{At: 1886 * milli, Fault: "reset", Victim: "2"},
		Step{At: 2276 * milli, Fault: "slow-disk", Victim: "leader:0", For: 535 * milli, Amount: 53},
		Step{At: 2798 * milli, Fault: "isolate", Victim: "controller", For: 1010 * milli})),
}

// The disks of scenarios: syncs take a fraction of a millisecond, or several.
var (
	fast = [2]int{}
	slow = [2]int{2, 12}
)

func rough(p Plan) Plan {
	p.RoughStart = true
	return p
}

func sparse(window time.Duration, p Plan) Plan {
	p.Window, p.Pace, p.Absent = window, 12*milli, keyedWork|appendWork|groupWork
	return p
}

func seeded(seed uint64, p Plan) Plan {
	p.Seed = seed
	return p
}

func with(founders int, p Plan) Plan {
	p.Founders = founders
	return p
}

func scenario(name string, syncMs [2]int, steps ...Step) Plan {
	last := steps[len(steps)-1]
	return Plan{Name: name, Founders: 3, Pace: 10 * milli, SyncMs: syncMs, Window: last.At + last.For + 500*milli, Steps: steps}
}
