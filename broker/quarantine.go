package broker

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// markerKey is the key in the vote store under which a group's replica on this broker is on record, by server ID.
const markerKey = "replica"

// raftTermKey is where hashicorp/raft keeps the current term. It is stored only after the replica's log was opened.
var raftTermKey = []byte("CurrentTerm")

// prepareDir makes the directory of a replica that is new here, and finds out whether that of an old one has gone.
//
// The order is: directory, durably; then the marker; then Open, which may vote and acknowledge. So a marker without a directory means that
// the directory was deleted, and a replica that forgot what it acknowledged does not come back under its name.
func (h *hosted) prepareDir() error {
	if err := h.m.b.stable.Damaged(h.group); err != nil {
		return &raftlog.DamageError{File: filepath.Join(h.m.b.cfg.DataDir, stableFile), Reason: err.Error()}
	}
	path := filepath.Join(h.m.dir, h.dirName)
	marker, err := h.m.b.stable.Get(h.group, markerKey)
	if err != nil {
		return fmt.Errorf("reading the vote store: %w", err)
	}
	files, err := h.m.fs().ReadDir(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return err
	}
	mine := string(marker) == h.serverID
	switch {
	case mine && missing:
		return &raftlog.DamageError{File: path, Reason: "the replica's directory is missing"}
	case mine && len(files) == 0 && h.hasTerm():
		return &raftlog.DamageError{File: path, Reason: "the replica's files are missing"}
	case mine:
		return nil
	case len(files) > 0:
		return &raftlog.DamageError{File: path, Reason: "the vote store knows nothing of the replica: its votes are lost"}
	}
	return h.makeDir(path)
}

func (h *hosted) hasTerm() bool {
	term, err := h.m.b.stable.Group(h.group).GetUint64(raftTermKey)
	return err == nil && term > 0
}

// makeDir begins a replica. What the vote store has of another replica of the group that was here before is of no meaning for the new name.
func (h *hosted) makeDir(path string) error {
	if err := h.m.fs().MkdirAll(path); err != nil {
		return fmt.Errorf("making the replica's directory: %w", err)
	}
	h.m.relist.Store(true)
	if err := h.m.fs().SyncDir(h.m.dir); err != nil {
		return fmt.Errorf("making the replica's directory: %w", err)
	}
	if err := h.m.b.stable.Delete(h.group); err != nil {
		return fmt.Errorf("clearing the vote store: %w", err)
	}
	if err := h.m.b.stable.Put(h.group, markerKey, []byte(h.serverID)); err != nil {
		return fmt.Errorf("writing the vote store: %w", err)
	}
	return nil
}

// quarantine sets the damaged files aside and has the cluster know. First the renaming, then the report: a crash in between leaves a marker
// without a directory, which is reported at the next start. The controller answers with a fresh replica, which the manager opens; the files
// stay until the partition is whole again (replicaManager.clean).
func (h *hosted) quarantine(cause error) {
	h.log.Error("the replica is damaged; its files are set aside and it is rebuilt from its peers", "error", cause)
	h.damaged.Store(true)
	h.m.rebuilds.begin(h.group, h.serverID)
	h.m.b.metrics.Quarantines.Inc()
	h.setTrouble(fmt.Errorf("damaged, being rebuilt: %w", cause))
	if err := h.setAside(); err != nil {
		h.log.Error("setting the damaged files aside", "error", err)
	} else if err := h.discardVotes(); err != nil {
		h.log.Error("discarding the damaged votes", "error", err)
	}
	for h.ctx.Err() == nil {
		_, p := h.assigned()
		if p.IsQuarantined(h.serverID) || p.Surplus(h.serverID) {
			return
		}
		_, err := h.m.b.node.Propose(h.ctx, &metadata.QuarantineReplica{TP: h.tp, Group: h.group, ServerID: h.serverID, Reason: cause.Error()})
		if err != nil && h.ctx.Err() == nil {
			h.log.Warn("reporting the damaged replica", "error", err)
		}
		h.awaitUpdate(time.Second)
	}
}

// discardVotes removes damaged terms and votes, after the files are gone from their place. What is left is the marker, without a directory: so this replica does not come
// back under its name, and the next one finds nothing of it.
func (h *hosted) discardVotes() error {
	if h.m.b.stable.Damaged(h.group) == nil {
		return nil
	}
	return h.m.b.stable.Replace(h.group, markerKey, []byte(h.serverID))
}

// awaitUpdate waits for news from the metadata, and at most d.
func (h *hosted) awaitUpdate(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-h.wake:
	case <-t.C:
	case <-h.ctx.Done():
	}
}

func (h *hosted) setAside() error {
	from := filepath.Join(h.m.dir, h.dirName)
	if _, err := h.m.fs().Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	to := filepath.Join(h.m.dir, damagedName(h.dirName, h.m.b.cfg.Seams.Now()))
	if err := h.m.fs().Rename(from, to); err != nil {
		return err
	}
	h.m.relist.Store(true)
	return h.m.fs().SyncDir(h.m.dir)
}

// compressionOf is nil for "producer": batches stay as they came.
func compressionOf(name string) *record.Compression {
	if name == "producer" {
		return nil
	}
	c, err := record.ParseCompression(name)
	if err != nil {
		return nil // settings are validated before they are stored
	}
	return &c
}
