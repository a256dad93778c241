package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// fault brings a step about and returns when it is over. Restarts that fail are tried again by the healing at the end.
type fault func(r *run, s Step, n *Node, rng *rand.Rand)

var faults = map[string]fault{
	"power":         func(r *run, s Step, n *Node, _ *rand.Rand) { r.down(s.For, true, n) },
	"kill":          func(r *run, s Step, n *Node, _ *rand.Rand) { r.down(s.For, false, n) },
	"power-all":     func(r *run, s Step, _ *Node, _ *rand.Rand) { r.down(s.For, true, r.c.Members()...) },
	"kill-all":      func(r *run, s Step, _ *Node, _ *rand.Rand) { r.down(s.For, false, r.c.Members()...) },
	"power-two":     func(r *run, s Step, n *Node, _ *rand.Rand) { r.down(s.For, true, n, r.other(n)) },
	"slow-power":    slowPower,
	"restart":       func(r *run, s Step, n *Node, _ *rand.Rand) { r.restart(n, s.For) },
	"rolling":       rolling,
	"isolate":       func(r *run, s Step, n *Node, _ *rand.Rand) { r.cut(s.For, r.around(n, true, true, true)...) },
	"isolate-peers": func(r *run, s Step, n *Node, _ *rand.Rand) { r.cut(s.For, r.around(n, false, true, true)...) },
	"mute":          func(r *run, s Step, n *Node, _ *rand.Rand) { r.cut(s.For, r.around(n, false, true, false)...) },
	"deafen":        func(r *run, s Step, n *Node, _ *rand.Rand) { r.cut(s.For, r.around(n, false, false, true)...) },
	"cut-link": func(r *run, s Step, n *Node, _ *rand.Rand) {
		o := r.other(n)
		r.cut(s.For, link{n.IP, o.IP}, link{o.IP, n.IP})
	},
	"cut-one-way": func(r *run, s Step, n *Node, _ *rand.Rand) { r.cut(s.For, link{n.IP, r.other(n).IP}) },
	"flap":        flap,
	"lossy":       lossy,
	"delay":       delay,
	"reset":       reset,
	"echo":        echo,
	"slow-disk":   func(r *run, s Step, n *Node, _ *rand.Rand) { r.slow(n, s.Amount); r.pause(s.For); r.slow(n, 0) },
	"stall-disk":  func(r *run, s Step, n *Node, _ *rand.Rand) { n.Disk().Stall(time.Now().Add(s.For)); r.pause(s.For) },
	"freeze":      freeze,
	"fail-sync":   failSync,
	"full-disk": func(r *run, s Step, n *Node, _ *rand.Rand) {
		d := n.Disk()
		d.SetFull(true)
		r.pause(s.For)
		d.SetFull(false)
	},
	"read-error":    readError,
	"flip":          func(r *run, s Step, n *Node, rng *rand.Rand) { r.damage(n, s.Amount, rng, flipSealed) },
	"flip-down":     func(r *run, s Step, n *Node, rng *rand.Rand) { r.damageDown(s, n, rng, flipAny) },
	"flip-version":  func(r *run, s Step, n *Node, rng *rand.Rand) { r.damageDown(s, n, rng, flipVersion) },
	"delete-down":   func(r *run, s Step, n *Node, rng *rand.Rand) { r.damageDown(s, n, rng, deleteAny) },
	"truncate-down": func(r *run, s Step, n *Node, rng *rand.Rand) { r.damageDown(s, n, rng, truncateAny) },
	"wipe":          wipe,
	"rot-votes":     rotVotes,
	"rot-metadata":  rotMetadata,
	"kill-start":    killStart,
	"clock":         clock,
	"create-topic":  createTopic,
	"grow-topic":    growTopic,
	"elect":         elect,
	"decommission":  decommission,
}

// versionAt is where the files of a log have their version: behind eight bytes that say what they are.
const versionAt = 8

// damages are the faults that change what is stored.
var damages = map[string]bool{"flip": true, "flip-down": true, "flip-version": true, "delete-down": true, "truncate-down": true}

// victim finds who a step strikes; nil if that is nobody just now.
func (r *run) victim(s Step) *Node {
	id := api.NoBroker
	switch role, arg, _ := strings.Cut(s.Victim, ":"); role {
	case "":
		return nil
	case "leader":
		p, _ := strconv.Atoi(arg)
		id = r.leader(eventsTopic, int32(p))
	case "controller":
		if b := r.running(); b != nil {
			id = b.Metadata([]string{}).Controller
		}
	case "coordinator":
		id = r.coordinator()
	default:
		n, _ := strconv.Atoi(role)
		id = api.BrokerID(n)
	}
	return r.node(id)
}

func (r *run) node(id api.BrokerID) *Node {
	for _, n := range r.c.Members() {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// running is a broker that runs, if any does.
func (r *run) running() *broker.Broker {
	for _, n := range r.c.Members() {
		if b := n.Up(); b != nil {
			return b
		}
	}
	return nil
}

// leader is who leads a partition, by the newest that any broker knows.
func (r *run) leader(topic string, p int32) api.BrokerID {
	id, epoch := api.NoBroker, int32(-1)
	for _, n := range r.c.Members() {
		b := n.Up()
		if b == nil {
			continue
		}
		for _, t := range b.Metadata([]string{topic}).Topics {
			if int(p) < len(t.Partitions) && t.Partitions[p].LeaderEpoch > epoch {
				id, epoch = t.Partitions[p].Leader, t.Partitions[p].LeaderEpoch
			}
		}
	}
	return id
}

func (r *run) coordinator() api.BrokerID {
	for _, p := range []int32{0, 1} {
		if id := r.leader("__consumer_offsets", p); id != api.NoBroker {
			return id
		}
	}
	return api.NoBroker
}

// other is another broker than n, one that runs if possible: the next by ID.
func (r *run) other(n *Node) *Node {
	all := r.c.Members()
	at := int(n.ID)
	for i := range len(all) - 1 {
		if o := all[(at+i)%len(all)]; o.Broker() != nil {
			return o
		}
	}
	return all[at%len(all)]
}

// pause lets time pass, unless the run has come to its healing.
func (r *run) pause(d time.Duration) { _ = sleep(r.faulting, d) }

// down ends brokers at the same moment and starts them again.
func (r *run) down(d time.Duration, power bool, nodes ...*Node) {
	for _, n := range nodes {
		n.Kill(power)
	}
	r.pause(d)
	r.startAll(nodes...)
}

// slowPower makes the disk slow, so that there is most likely a sync under way when the power fails, with the followers ahead of it.
func slowPower(r *run, s Step, n *Node, _ *rand.Rand) {
	r.slow(n, s.Amount)
	r.pause(s.For / 2)
	r.down(s.For/2, true, n)
	r.slow(n, 0)
}

func (r *run) slow(n *Node, most int) {
	if most == 0 {
		n.Disk().SetSlow(r.plan.SyncMs[0], r.plan.SyncMs[1])
		return
	}
	n.Disk().SetSlow(most/4, most)
}

func (r *run) restart(n *Node, pause time.Duration) {
	if err := n.Stop(10 * time.Second); err != nil {
		r.logf("stopping broker %d: %v", n.ID, err)
	}
	r.pause(pause)
	r.startAll(n)
}

func rolling(r *run, s Step, _ *Node, _ *rand.Rand) {
	for _, n := range r.c.Members() {
		r.restart(n, s.For)
		if n.Broker() != nil && r.faulting.Err() == nil {
			_ = n.Await(5 * time.Second)
		}
	}
}

// around are the links between a broker and its peers, and clients too if asked for.
func (r *run) around(n *Node, clients, out, in bool) []link {
	var hosts []string
	for _, o := range r.c.Members() {
		if o != n {
			hosts = append(hosts, o.IP)
		}
	}
	if clients {
		hosts = append(hosts, r.work.hosts()...)
	}
	var links []link
	for _, h := range hosts {
		if out {
			links = append(links, link{n.IP, h})
		}
		if in {
			links = append(links, link{h, n.IP})
		}
	}
	return links
}

func (r *run) change(links []link, f func(*linkState)) {
	for _, l := range links {
		r.c.Net.Change(l.from, l.to, f)
	}
}

func (r *run) cut(d time.Duration, links ...link) {
	r.change(links, func(s *linkState) { s.cut = true })
	r.pause(d)
	r.change(links, func(s *linkState) { s.cut = false })
}

func flap(r *run, s Step, n *Node, rng *rand.Rand) {
	links := r.around(n, false, true, true)
	for end := time.Now().Add(s.For); time.Now().Before(end) && r.faulting.Err() == nil; {
		r.cut(time.Duration(rng.Int64N(int64(400*time.Millisecond))), links...)
		r.pause(time.Duration(rng.Int64N(int64(600 * time.Millisecond))))
	}
}

func (r *run) everyLink() []link {
	var all []link
	for _, n := range r.c.Members() {
		all = append(all, r.around(n, true, true, true)...)
	}
	return all
}

func lossy(r *run, s Step, _ *Node, _ *rand.Rand) {
	all := r.everyLink()
	r.change(all, func(l *linkState) { l.loss, l.twice = float64(s.Amount)/100, float64(s.Amount)/100 })
	r.pause(s.For)
	r.change(all, func(l *linkState) { l.loss, l.twice = 0, 0 })
}

func delay(r *run, s Step, n *Node, _ *rand.Rand) {
	links := r.around(n, false, true, true)
	r.change(links, func(l *linkState) { l.delay = time.Duration(s.Amount) * time.Millisecond })
	r.pause(s.For)
	r.change(links, func(l *linkState) { l.delay = 0 })
}

func reset(r *run, _ Step, n *Node, _ *rand.Rand) {
	for _, l := range r.around(n, true, true, false) {
		r.c.Net.Break(l.from, l.to)
	}
}

// echo repeats the beginnings of connections between brokers. All are cut first, so that there are new ones.
func echo(r *run, s Step, _ *Node, _ *rand.Rand) {
	r.c.Net.SetEcho(float64(s.Amount)/100, "7071")
	for _, n := range r.c.Members() {
		reset(r, s, n, nil)
	}
	r.pause(s.For)
	r.c.Net.SetEcho(0, "7071")
}

// freeze is the nearest that a simulation gets to a stopped process: nothing comes in or goes out and no sync ends, until all does at once. Its timers run.
func freeze(r *run, s Step, n *Node, _ *rand.Rand) {
	n.Disk().Stall(time.Now().Add(s.For))
	r.cut(s.For, r.around(n, true, true, true)...)
}

// failSync fails one sync of each of a broker's segments, and restarts the broker later, as somebody would whose replicas have failed.
func failSync(r *run, s Step, n *Node, _ *rand.Rand) {
	n.Disk().mem.FailSync("*.log", syscall.EIO)
	r.pause(s.For)
	n.Disk().mem.FailSync("", nil)
	r.down(100*time.Millisecond, false, n)
}

func readError(r *run, s Step, n *Node, _ *rand.Rand) {
	d := n.Disk()
	d.faults.Add(vfs.Rule{Op: vfs.OpRead, Glob: "*.log", Err: syscall.EIO, Times: 3})
	r.pause(s.For)
	d.faults.Clear()
	r.down(100*time.Millisecond, false, n)
}

// damage changes what a broker has stored.
func (r *run) damage(n *Node, times int, rng *rand.Rand, how func(*Disk, *rand.Rand, bool) (string, error)) {
	r.damageAs(n, times, rng, true, how)
}

func (r *run) damageAs(n *Node, times int, rng *rand.Rand, sealed bool, how func(*Disk, *rand.Rand, bool) (string, error)) {
	for range times {
		what, err := how(n.Disk(), rng, sealed)
		if err != nil {
			r.logf("damage: %v", err)
		} else if what != "" {
			r.logf("broker %d: %s", n.ID, what)
		}
	}
}

// damageDown damages what a broker has stored while it is down. After a stop in order everything is protected; after a crash a flipped bit in the
// last frame of a log cannot be told from a torn write, so then the newest segments are spared.
func (r *run) damageDown(s Step, n *Node, rng *rand.Rand, how func(*Disk, *rand.Rand, bool) (string, error)) {
	clean := rng.IntN(2) == 0
	if clean {
		clean = n.Broker() != nil && n.Stop(10*time.Second) == nil
	} else {
		n.Kill(true)
	}
	if n.Broker() == nil {
		r.damageAs(n, s.Amount, rng, !clean, how)
	}
	r.pause(s.For)
	r.startAll(n)
}

// pick chooses a file: mostly segments, sometimes indexes and checkpoints.
func pick(d *Disk, rng *rand.Rand, sealed bool) string {
	files := d.files(".log", sealed)
	if rng.IntN(3) == 0 {
		files = append(d.files(".idx", false), d.files(".ckpt", false)...)
	}
	if len(files) == 0 {
		return ""
	}
	return files[rng.IntN(len(files))]
}

func flipSealed(d *Disk, rng *rand.Rand, _ bool) (string, error) { return flipAny(d, rng, true) }

func flipAny(d *Disk, rng *rand.Rand, sealed bool) (string, error) {
	name := pick(d, rng, sealed)
	info, err := d.mem.Stat(name)
	if name == "" || err != nil || info.Size == 0 {
		return "", nil
	}
	at := rng.Int64N(info.Size)
	if d.ended(name, at) {
		return "", nil
	}
	return fmt.Sprintf("flipped a bit in byte %d of the %d of %s", at, info.Size, filepath.Base(filepath.Dir(name))+"/"+info.Name), d.flip(name, at, uint(rng.IntN(8)))
}

// flipVersion makes a file look as if a later release had written it. It need not spare the newest: their headers are never torn.
func flipVersion(d *Disk, rng *rand.Rand, _ bool) (string, error) {
	name := pick(d, rng, false)
	if name == "" {
		return "", nil
	}
	return "flipped a bit of the version of " + name, d.flip(name, versionAt, 1+uint(rng.IntN(7)))
}

func deleteAny(d *Disk, rng *rand.Rand, sealed bool) (string, error) {
	name := pick(d, rng, sealed)
	if name == "" {
		return "", nil
	}
	return "deleted " + name, d.remove(name)
}

func truncateAny(d *Disk, rng *rand.Rand, sealed bool) (string, error) {
	name := pick(d, rng, sealed)
	info, err := d.mem.Stat(name)
	if name == "" || err != nil || info.Size == 0 {
		return "", nil
	}
	size := rng.Int64N(info.Size)
	return fmt.Sprintf("truncated %s to %d of %d bytes", name, size, info.Size), d.cut(name, size)
}

// wipe replaces a broker's disk by an empty one.
func wipe(r *run, s Step, n *Node, rng *rand.Rand) {
	for n.Kill(true); !n.Wipe(rng); { // another fault may have started it again
		n.Kill(true)
	}
	r.slow(n, 0)
	r.pause(s.For)
	r.startAll(n)
}

func clock(_ *run, s Step, n *Node, rng *rand.Rand) {
	jump := time.Duration(s.Amount) * time.Second
	if jump > 0 && rng.IntN(2) == 0 {
		jump = -jump
	}
	n.skew.Add(int64(jump))
}

func (r *run) admin(what string, f func(context.Context, *client.Admin) error) {
	ctx, cancel := context.WithTimeout(r.faulting, 8*time.Second)
	defer cancel()
	if err := f(ctx, r.work.client.Admin()); err != nil {
		r.logf("%s: %v", what, err)
	}
}

func createTopic(r *run, s Step, _ *Node, _ *rand.Rand) {
	name := fmt.Sprintf("extra-%d", s.At)
	r.admin("create "+name, func(ctx context.Context, a *client.Admin) error {
		_, err := a.CreateTopic(ctx, client.TopicSpec{Name: name, Partitions: int32(s.Amount), ReplicationFactor: 3})
		return err
	})
}

func growTopic(r *run, s Step, _ *Node, _ *rand.Rand) {
	r.admin("grow", func(ctx context.Context, a *client.Admin) error {
		_, err := a.CreatePartitions(ctx, trimTopic, int32(1+s.Amount))
		return err
	})
}

// elect has leaderships moved to whom they belong, as far as they are elsewhere.
func elect(r *run, _ Step, _ *Node, _ *rand.Rand) {
	r.admin("rebalance", func(ctx context.Context, a *client.Admin) error {
		_, err := a.Rebalance(ctx, false)
		return err
	})
}

// decommission drains a broker while another one joins, and takes it in again.
func decommission(r *run, s Step, n *Node, _ *rand.Rand) {
	fresh := r.join()
	if fresh == nil {
		return
	}
	_ = fresh.Await(5 * time.Second) // before that it cannot take replicas over, and the drain is refused
	r.admin("decommission", func(ctx context.Context, a *client.Admin) error {
		_, err := a.Decommission(ctx, int32(n.ID))
		return err
	})
	r.pause(s.For)
	r.admin("recommission", func(ctx context.Context, a *client.Admin) error { return a.Recommission(ctx, int32(n.ID)) })
}

// record adds a fault to the history, for as long as f takes.
func (r *run) record(s Step, n *Node, f func()) {
	start := r.rec.Now()
	victim := 0
	if n != nil {
		victim = int(n.ID)
	}
	r.logf("%s: %s", s.Fault, s)
	f()
	r.rec.Fault(history.Fault{Span: r.rec.Since(start), Name: s.Fault, Victim: victim})
	r.logf("%s: over", s.Fault)
}
