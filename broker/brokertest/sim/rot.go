package sim

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition/stable"
)

// rotVotes flips a bit of a term, a vote or a marker of a broker that is down. Either its Start refuses it, or that group's replica is rebuilt under another name.
func rotVotes(r *run, s Step, n *Node, rng *rand.Rand) {
	n.Kill(rng.IntN(2) == 0)
	r.rot(n, rng, (*Disk).flipVote)
	r.pause(s.For)
	r.startAll(n)
}

// rotMetadata damages the log or the snapshot of the metadata group of a broker that is down: it must not start with them.
func rotMetadata(r *run, s Step, n *Node, rng *rand.Rand) {
	n.Kill(rng.IntN(2) == 0)
	disk := n.Disk() // another fault may start the broker, and so have the disk replaced
	damaged := r.rot(n, rng, (*Disk).damageMetadata)
	r.pause(s.For)
	if err := n.Start(); damaged && err == nil && n.runsOn(disk) {
		r.problem("broker %d started with damaged metadata", n.ID)
	}
	r.startAll(n)
}

// sealedLast is the last entry that the seal of the metadata's log knows of: who loses one behind it loses what nobody was told of.
func sealedLast(seal []byte) uint64 {
	if len(seal) < 17 {
		return 0
	}
	return binary.LittleEndian.Uint64(seal[9:])
}

func (r *run) rot(n *Node, rng *rand.Rand, how func(*Disk, *rand.Rand) string) bool {
	defer n.take()()
	if n.Broker() != nil {
		return false // somebody else has started it
	}
	what := how(n.Disk(), rng)
	if what != "" {
		r.logf("broker %d: %s", n.ID, what)
	}
	return what != ""
}

func flipBit(rng *rand.Rand, b []byte) []byte {
	b = bytes.Clone(b)
	b[rng.IntN(len(b))] ^= 1 << rng.IntN(8)
	return b
}

func (d *Disk) flipVote(rng *rand.Rand) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	groups := slices.Sorted(maps.Keys(d.stable))
	if len(groups) == 0 {
		return ""
	}
	g := groups[rng.IntN(len(groups))]
	keys := slices.Sorted(maps.Keys(d.stable[g]))
	k := keys[rng.IntN(len(keys))]
	d.stable[g][k] = flipBit(rng, d.stable[g][k])
	d.rotten = true
	return fmt.Sprintf("flipped a bit of %q of group %d in the vote store", k, g)
}

// damageMetadata flips a bit of an entry, of the seal or of the snapshot, or loses the last entry.
func (d *Disk) damageMetadata(rng *rand.Rand) (what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := &d.meta
	indexes := slices.Sorted(maps.Keys(m.log))
	seal := slices.Sorted(maps.Keys(m.kv))
	switch kind := rng.IntN(4); {
	case kind == 0 && m.meta != nil:
		m.data, what = flipBit(rng, m.data), "flipped a bit of the metadata's snapshot"
	case kind == 1 && len(seal) > 0:
		m.kv[seal[0]], what = flipBit(rng, m.kv[seal[0]]), "flipped a bit of the seal of the metadata's log"
	case kind == 2 && len(indexes) > 0 && len(seal) > 0 && sealedLast(m.kv[seal[0]]) >= indexes[len(indexes)-1]:
		delete(m.log, indexes[len(indexes)-1])
		what = fmt.Sprintf("lost entry %d, the last one, of the metadata's log", indexes[len(indexes)-1])
	case len(indexes) > 0:
		e := m.log[indexes[rng.IntN(len(indexes))]]
		e.Data = append(bytes.Clone(e.Data), e.Extensions...)
		e.Data = flipBit(rng, e.Data)
		at := len(e.Data) - len(e.Extensions)
		e.Data, e.Extensions = e.Data[:at:at], e.Data[at:]
		m.log[e.Index] = e
		what = fmt.Sprintf("flipped a bit of entry %d of the metadata's log", e.Index)
	}
	d.rotten = d.rotten || what != ""
	return what
}

// isRotten says that the vote store or the metadata's files on this disk were damaged.
func (d *Disk) isRotten() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rotten
}

// killStart kills a broker several times while it starts, each time a moment after the start began.
func killStart(r *run, s Step, n *Node, rng *rand.Rand) {
	n.Kill(true)
	r.startAndKill(n, 1+rng.IntN(3), time.Duration(s.Amount)*time.Millisecond, rng)
	r.pause(s.For)
	r.startAll(n)
}

func (r *run) startAndKill(n *Node, times int, within time.Duration, rng *rand.Rand) {
	for range times {
		done := make(chan struct{})
		began := time.Now()
		go func() {
			defer close(done)
			r.startAll(n)
		}()
		time.Sleep(time.Duration(rng.Int64N(int64(within))))
		n.Kill(rng.IntN(3) > 0)
		<-done
		r.logf("broker %d was killed %s after it began to start", n.ID, time.Since(began).Round(time.Microsecond))
	}
}

// refused says that a start failed for damage, which the broker's operator answers with an empty disk.
func refused(err error) bool {
	return errors.Is(err, metadata.ErrDamaged) || errors.Is(err, metadata.ErrMetadataLost) || errors.Is(err, stable.ErrDamaged)
}
