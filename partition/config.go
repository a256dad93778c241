package partition

import (
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Config says how to open a replica. Name, Dir, LocalID, Transport and Stable are required.
type Config struct {
	Name      string             // "orders/3", for messages
	Group     transport.GroupID  // on the wire
	Dir       string             // this replica's log and nothing else
	FS        vfs.FS             // nil: the operating system's
	LocalID   raft.ServerID      // "<broker>-<incarnation>-<generation>"
	LocalAddr raft.ServerAddress // the broker ID as text; empty: the transport's
	Transport *transport.Transport
	Stable    raft.StableStore // closed with the replica if it has a Close, which ends writes that wait
	Settings  Settings
	Machine   Machine // nil: none
	Budget    *Budget // of the whole broker; nil: only the partition's own limit
	Timing    Timing
	Limits    Limits
	Meter     Meter            // counts; nil: nobody does
	Now       func() time.Time // for timestamps, retention and segment ages; nil: time.Now
	Logger    hclog.Logger
	// OnEvent is told what happens to the replica. Calls come one at a time, from one of several goroutines, and must not block or call the
	// replica's Close or Destroy.
	OnEvent func(Event)
}

// Settings are the topic's settings that matter to a replica. They may change while it runs (UpdateSettings).
type Settings struct {
	SegmentBytes    int64               // segment.bytes; 0: 128 MiB
	SegmentAge      time.Duration       // segment.ms; 0: 7 days
	RetentionAge    time.Duration       // retention.ms; below 0: none; 0: 7 days
	RetentionBytes  int64               // retention.bytes; below 0 and 0: none
	MaxMessageBytes int                 // max.message.bytes: of one batch as stored; 0: 1 MiB + 12 (Kafka's default); at most 32 MiB
	Compression     *record.Compression // compression.type; nil: as the producer sent it
	Flush           raftlog.Durability  // flush: quorum or os
	LogAppendTime   bool                // message.timestamp.type is LogAppendTime
	// MachineTrimBytes: groups with a Machine drop log entries that a checkpoint covers once this many bytes are in sealed segments. 0: 64 MiB, below
	// 0: never.
	MachineTrimBytes int64
}

// Kafka's defaults.
const (
	DefaultRetentionAge    = 7 * 24 * time.Hour
	DefaultMaxMessageBytes = 1<<20 + 12
)

// Timing holds the intervals of one group. The zero value of each means the default beside it.
//
// They are long because almost nothing depends on them. That a broker has died, stands still or is cut off, its peers notice for all groups at once, within a second
// (transport.Config.SilentAfter) or at once (package election). Who leads, who agrees with that, and what is committed, brokers tell each other twice a second for all groups in one
// message (claims). What is left for these is that all of it fails. Each costs an idle group work for every follower: Heartbeat five to ten messages, Commit one.
type Timing struct {
	Heartbeat time.Duration // 2 min: a follower that hears nothing for this long (up to three times as long) stands for election
	Election  time.Duration // Heartbeat: a candidate that is not elected in this time tries again, unless package election has it do so before
	Lease     time.Duration // two thirds of Heartbeat: a leader that hears no quorum for this long steps down. Heartbeats are up to a fifth of Heartbeat apart
	// Commit, 20 s, but at most a third of Heartbeat: an idle leader sends an append to followers this often, up to twice as rarely. hashicorp/raft also waits for this, or the next proposal, before it sends again what
	// was lost with a connection; the elector has such a proposal made.
	Commit    time.Duration
	Retention time.Duration // 30 s: how often the leader looks for segments to drop, with 20 % jitter
	Ready     time.Duration // 5 s: how long an append waits, at most, for a new leader's barrier or a recovery
}

// Limits bound what a replica holds. The zero value of each means the default beside it.
type Limits struct {
	InflightBytes   int64 // 16 MiB: appended but not yet committed
	Inflight        int   // 60: the same in batches and commands; at most as many as raft's queue holds, which is less where batches may be large
	Waiters         int   // 1024: appends that wait for room among those
	TailCacheBytes  int64 // 1 MiB: newest entries in memory
	CheckpointBytes int64 // 32 MiB: a crash replays about this much
	// ReserveBytes, 64 MiB: with less free space than this on the disk, appends are refused with ErrStorageFull, and with less than a quarter of it commands; below
	// 0: none.
	ReserveBytes int64
	Watchers     int // 65536: Watch beyond this sends after 100 ms at the latest, so that its caller polls
	StateBytes   int // 64 MiB: of a decompressed batch, where one must be decoded
}

// Machine is a state machine that a group replicates beside its batches. Its methods are called from one goroutine at a time, and must be
// deterministic: no clock, no randomness, no map order. They must not call the replica.
type Machine interface {
	// Apply applies a command that Propose was given on some replica. at is the proposer's clock, made monotone over the log; index
	// is the command's place. What it returns goes to the caller of Propose, if that was here. A command that cannot be decoded must not
	// change anything.
	Apply(cmd []byte, at time.Time, index raftlog.Index) any
	// Checkpoint encodes the whole state.
	Checkpoint() ([]byte, error)
	// Restore replaces the state by one that Checkpoint encoded.
	Restore([]byte) error
}

// Meter is told what passes through a replica. Calls come from many goroutines and must cost next to nothing.
type Meter interface {
	// Appended is called when a leader has taken a batch in: it is validated and on its way. Retries count again.
	Appended(records, bytes int)
	// Acknowledged is called when that batch is committed; took is the time since Appended. Duplicates do not count.
	Acknowledged(records, bytes int, took time.Duration)
	// Synced is called after each fdatasync of the log.
	Synced(took time.Duration)
	// Repaired is called when a damaged index file was written anew from its segment.
	Repaired()
}

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Appended(int, int)                    {}
func (noMeter) Acknowledged(int, int, time.Duration) {}
func (noMeter) Synced(time.Duration)                 {}
func (noMeter) Repaired()                            {}

// EventType says what an Event tells.
type EventType uint8

// The types of events.
const (
	// EventLeader: this replica leads, and serves: its barrier is through.
	EventLeader EventType = iota + 1
	// EventNotLeader: this replica no longer leads.
	EventNotLeader
	// EventLeaderChanged: another leader, or none, became known.
	EventLeaderChanged
	// EventConfiguration: a change of the Raft configuration was committed.
	EventConfiguration
	// EventFailed: the replica's log has failed (Err). It comes once. With a *raftlog.DamageError the replica has to be rebuilt; with
	// raftlog.ErrOutOfStep or ErrPoisoned it may be closed and opened again.
	EventFailed
)

// Event is what Config.OnEvent gets.
type Event struct {
	Type     EventType
	Leader   raft.ServerAddress
	LeaderID raft.ServerID
	Term     uint64
	Servers  []raft.Server // EventConfiguration
	Err      error         // EventFailed
}

func (c Config) withDefaults() (Config, error) {
	switch {
	case c.Dir == "":
		return c, errors.New("partition: Config.Dir is missing")
	case c.LocalID == "":
		return c, errors.New("partition: Config.LocalID is missing")
	case c.Transport == nil:
		return c, errors.New("partition: Config.Transport is missing")
	case c.Stable == nil:
		return c, errors.New("partition: Config.Stable is missing")
	}
	if c.Name == "" {
		c.Name = c.Dir
	}
	if c.FS == nil {
		c.FS = vfs.OS()
	}
	if c.LocalAddr == "" {
		c.LocalAddr = c.Transport.Local()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Meter == nil {
		c.Meter = noMeter{}
	}
	if c.OnEvent == nil {
		c.OnEvent = func(Event) {}
	}
	c.Timing = c.Timing.withDefaults()
	c.Limits = c.Limits.withDefaults()
	c.Settings = c.Settings.withDefaults()
	inflight := raftQueue(c.Settings) - queueReserve
	setDefault(&c.Limits.Inflight, inflight)
	c.Limits.Inflight = min(c.Limits.Inflight, inflight)
	return c, nil
}

func (t Timing) withDefaults() Timing {
	setDefault(&t.Heartbeat, 2*time.Minute)
	setDefault(&t.Election, t.Heartbeat)
	setDefault(&t.Lease, t.Heartbeat*2/3)
	setDefault(&t.Commit, min(20*time.Second, t.Heartbeat/3))
	setDefault(&t.Retention, 30*time.Second)
	setDefault(&t.Ready, 5*time.Second)
	t.Election = max(t.Election, t.Heartbeat)
	t.Lease = min(t.Lease, t.Heartbeat)
	return t
}

func (l Limits) withDefaults() Limits {
	setDefault(&l.InflightBytes, 16<<20)
	setDefault(&l.Waiters, 1024)
	setDefault(&l.TailCacheBytes, 1<<20)
	setDefault(&l.CheckpointBytes, 32<<20)
	setDefault(&l.ReserveBytes, 64<<20)
	setDefault(&l.Watchers, 65536)
	setDefault(&l.StateBytes, 64<<20)
	return l
}

func (s Settings) withDefaults() Settings {
	setDefault(&s.SegmentBytes, raftlog.DefaultSegmentBytes)
	setDefault(&s.SegmentAge, raftlog.DefaultSegmentAge)
	setDefault(&s.RetentionAge, DefaultRetentionAge)
	setDefault(&s.RetentionBytes, -1)
	setDefault(&s.MaxMessageBytes, DefaultMaxMessageBytes)
	setDefault(&s.MachineTrimBytes, 64<<20)
	s.MaxMessageBytes = min(s.MaxMessageBytes, maxEntryBytes)
	return s
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
