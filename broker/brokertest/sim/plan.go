package sim

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Plan is what happens in a run: what the cluster is like, and the schedule of its faults. A seed decides all of it.
type Plan struct {
	Name     string
	Seed     uint64
	Founders int
	// Pace is the pause of a producer between two records.
	Pace time.Duration
	// SyncMs are from and to which time a sync takes on every disk; 0, 0: a fast one.
	SyncMs [2]int
	Steps  []Step
	// Window is how long faults are brought about.
	Window time.Duration
	// Absent are the clients that do nothing in this run. Who does less at a time costs less, and lets the others come to what they hide.
	Absent Work
	// RoughStart: the founders are killed while they start for the first time.
	RoughStart bool
	// Flush is the topics' setting of that name; empty: its default. With "os" acknowledged records may be lost, which shows that the checker sees it.
	Flush string
}

// Work is kinds of clients, as bits. Steady producers and the reader of all partitions always work.
type Work uint

const (
	keyedWork Work = 1 << iota
	appendWork
	trimWork
	probeWork
	groupWork
	allWork = 1<<iota - 1
)

func (w Work) String() string {
	var names []string
	for i, name := range []string{"keyed", "append", "trim", "probe", "group"} {
		if w&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

// Step is one fault, or one demand of an operator.
type Step struct {
	At     time.Duration // since the faults began
	For    time.Duration // how long it lasts
	Fault  string
	Victim string // "1" to "9": a broker; "leader:0": who leads that partition of events then; "controller"; "coordinator"
	Amount int    // what it means depends on the fault
}

func (s Step) String() string {
	text := fmt.Sprintf("%7.3f s %s", s.At.Seconds(), s.Fault)
	if s.Victim != "" {
		text += " " + s.Victim
	}
	if s.Amount != 0 {
		text += fmt.Sprintf(" (%d)", s.Amount)
	}
	if s.For > 0 {
		text += fmt.Sprintf(" for %.3f s", s.For.Seconds())
	}
	return text
}

// startWithin is how long a broker may take to start: what it takes when no peer answers, and as long as disks do not write.
func (p Plan) startWithin() time.Duration {
	within := startWithin
	for _, s := range p.Steps {
		switch s.Fault {
		case "stall-disk", "slow-disk", "slow-power", "freeze":
			within += s.For
		}
	}
	return within
}

func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %d brokers, a record every %s, syncs of %d to %d ms\n", p.Seed, p.Founders, p.Pace, p.SyncMs[0], p.SyncMs[1])
	if p.Absent != 0 {
		fmt.Fprintf(&b, "clients that are absent: %s\n", p.Absent)
	}
	if p.RoughStart {
		fmt.Fprintln(&b, "killed during the first start")
	}
	for _, s := range p.Steps {
		fmt.Fprintln(&b, s)
	}
	return b.String()
}

// kind is a fault that a random plan may have.
type kind struct {
	name   string
	weight int
	// least and most it lasts.
	least, most time.Duration
	// victims are what its victim may be; "any": one of the brokers; empty: it strikes none in particular.
	victims []string
	amount  int // the largest
}

const second, milli = time.Second, time.Millisecond

var somebody = []string{"any", "leader", "leader", "controller", "coordinator"}

// kinds are the faults of random plans. Damage to what is stored strikes one broker in a run only, the same each time: no system keeps records of which every
// copy is damaged.
var kinds = []kind{
	{"power", 16, 50 * milli, 3 * second, somebody, 0},
	{"kill", 10, 50 * milli, 3 * second, somebody, 0},
	{"slow-power", 14, 300 * milli, 2 * second, []string{"leader", "leader", "any"}, 40},
	{"power-all", 8, 50 * milli, 2 * second, nil, 0},
	{"power-two", 6, 50 * milli, 2 * second, []string{"leader"}, 0},
	{"kill-all", 3, 50 * milli, 2 * second, nil, 0},
	{"restart", 8, 50 * milli, 1 * second, somebody, 0},
	{"rolling", 2, 100 * milli, 300 * milli, nil, 0},
	{"isolate", 10, 500 * milli, 6 * second, somebody, 0},
	{"isolate-peers", 8, 500 * milli, 6 * second, somebody, 0},
	{"mute", 5, 500 * milli, 5 * second, somebody, 0},
	{"deafen", 5, 500 * milli, 5 * second, somebody, 0},
	{"cut-link", 5, 500 * milli, 5 * second, somebody, 0},
	{"cut-one-way", 5, 500 * milli, 5 * second, somebody, 0},
	{"flap", 4, 1 * second, 4 * second, somebody, 0},
	{"lossy", 5, 1 * second, 5 * second, nil, 30},
	{"delay", 5, 1 * second, 5 * second, somebody, 300},
	{"reset", 6, 0, 0, somebody, 0},
	{"echo", 4, 1 * second, 6 * second, nil, 60},
	{"slow-disk", 6, 500 * milli, 4 * second, somebody, 60},
	{"stall-disk", 6, 200 * milli, 4 * second, somebody, 0},
	{"freeze", 6, 200 * milli, 5 * second, somebody, 0},
	{"fail-sync", 4, 500 * milli, 2 * second, somebody, 0},
	{"full-disk", 5, 500 * milli, 4 * second, somebody, 0},
	{"read-error", 2, 500 * milli, 2 * second, []string{"damaged"}, 0},
	{"flip", 5, 0, 0, []string{"damaged"}, 3},
	{"flip-down", 4, 100 * milli, 1 * second, []string{"damaged"}, 3},
	{"delete-down", 2, 100 * milli, 1 * second, []string{"damaged"}, 3},
	{"truncate-down", 2, 100 * milli, 1 * second, []string{"damaged"}, 3},
	{"wipe", 3, 100 * milli, 2 * second, []string{"damaged"}, 0},
	{"rot-votes", 3, 50 * milli, 1 * second, []string{"damaged"}, 0},
	{"rot-metadata", 2, 50 * milli, 1 * second, []string{"damaged"}, 0},
	{"kill-start", 8, 50 * milli, 1 * second, somebody, 120},
	{"clock", 4, 0, 0, somebody, 7200},
	{"create-topic", 3, 0, 0, nil, 3},
	{"grow-topic", 2, 0, 0, nil, 3},
	{"elect", 3, 0, 0, nil, 0},
	{"decommission", 2, 3 * second, 6 * second, []string{"any"}, 0},
}

// Random makes a plan out of a seed. Three of four are small: a few faults close together, and some of the clients, others in each.
func Random(seed uint64) Plan {
	rng := rand.New(rand.NewPCG(seed, 0x5eed))
	p := Plan{Seed: seed, Founders: 3, RoughStart: rng.IntN(5) == 0}
	steps, longest := 2+rng.IntN(4), 2*second
	if rng.IntN(4) > 0 {
		p.Window = 1500*milli + time.Duration(rng.IntN(1500))*milli
		p.Pace = []time.Duration{12 * milli, 18 * milli, 25 * milli}[rng.IntN(3)]
		p.Absent = Work(rng.IntN(allWork + 1))
	} else {
		steps, longest = 3+rng.IntN(7), 6*second
		p.Window = 3*second + time.Duration(rng.IntN(5))*second
		p.Pace = []time.Duration{8 * milli, 20 * milli, 40 * milli}[rng.IntN(3)]
		if rng.IntN(2) == 0 {
			p.Founders = 4 + rng.IntN(2)
		}
	}
	if rng.IntN(2) == 0 {
		p.SyncMs = [2]int{1, 3 + rng.IntN(12)}
	}
	damaged := fmt.Sprint(1 + rng.IntN(p.Founders))
	for len(p.Steps) < steps {
		s := randomStep(rng, p, damaged, longest)
		if len(p.Steps) == 0 { // enough writes have to fall into a fault
			if s.For == 0 {
				continue
			}
			s.For = max(s.For, 300*milli)
			s.At = min(s.At, p.Window-s.For)
		}
		p.Steps = append(p.Steps, s)
	}
	slices.SortStableFunc(p.Steps, func(a, b Step) int { return cmp.Compare(a.At, b.At) })
	return p
}

func randomStep(rng *rand.Rand, p Plan, damaged string, longest time.Duration) Step {
	total := 0
	for _, k := range kinds {
		total += k.weight
	}
	at := rng.IntN(total)
	var k kind
	for _, k = range kinds {
		if at -= k.weight; at < 0 {
			break
		}
	}
	s := Step{At: time.Duration(rng.Int64N(int64(p.Window))), Fault: k.name, For: k.least}
	if most := min(k.most, longest); most > k.least {
		// Short ones are as frequent as long ones.
		s.For += time.Duration(float64(most-k.least) * rng.Float64() * rng.Float64())
	}
	if k.amount > 0 {
		s.Amount = 1 + rng.IntN(k.amount)
	}
	if len(k.victims) > 0 {
		s.Victim = k.victims[rng.IntN(len(k.victims))]
	}
	switch s.Victim {
	case "any":
		s.Victim = fmt.Sprint(1 + rng.IntN(p.Founders))
	case "leader":
		s.Victim = fmt.Sprintf("leader:%d", rng.IntN(eventsPartitions))
	case "damaged":
		s.Victim = damaged
	}
	return s
}
