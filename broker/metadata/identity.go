package metadata

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

const (
	identityFile    = "broker.json"
	identityVersion = 1
	// identityBytesMax is far more than the file can have.
	identityBytesMax = 1 << 20
)

// Identity is broker.json: which broker, which incarnation of its data directory, which cluster. Its methods may be called from
// many goroutines.
type Identity struct {
	fs  vfs.FS
	dir string

	mu      sync.Mutex
	rec     identityRecord
	changed chan struct{} // closed when the cluster ID is known
}

// identityRecord is the file.
type identityRecord struct {
	FormatVersion int          `json:"format_version"`
	BrokerID      api.BrokerID `json:"broker_id"`
	Incarnation   string       `json:"incarnation"`
	ClusterID     string       `json:"cluster_id,omitempty"`
	Pledge        *Pledge      `json:"pledge,omitempty"`
	// Founders is the list that this broker, as the one that begins, tells all to begin with.
	Founders []Founder `json:"founders,omitempty"`
	// Member: the metadata group's files were begun in this directory, so their absence means that they were lost.
	Member bool `json:"member,omitempty"`
}

// Pledge is a broker's promise to begin a cluster's life together with a set of brokers.
type Pledge struct {
	ClusterID string         `json:"cluster_id"`
	Set       []api.BrokerID `json:"set"`
}

// OpenIdentity reads <dir>/broker.json, or makes it with a random incarnation if there is none.
// ErrBrokerMismatch, ErrNewerFormat, ErrMalformed.
func OpenIdentity(dir string, broker api.BrokerID) (*Identity, error) {
	return OpenIdentityOn(vfs.OS(), dir, broker)
}

// OpenIdentityOn is OpenIdentity on a file system other than the operating system's.
func OpenIdentityOn(fsys vfs.FS, dir string, broker api.BrokerID) (*Identity, error) {
	i := &Identity{fs: fsys, dir: dir, changed: make(chan struct{})}
	data, err := i.readFile()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		i.rec = identityRecord{FormatVersion: identityVersion, BrokerID: broker, Incarnation: randomName()[:12]} // 60 random bits
		err = i.update(func(*identityRecord) error { return nil })
	case err == nil:
		err = i.parse(data, broker)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", i.path(), err)
	}
	if i.rec.ClusterID != "" {
		close(i.changed)
	}
	return i, nil
}

func (i *Identity) path() string { return filepath.Join(i.dir, identityFile) }

func (i *Identity) parse(data []byte, broker api.BrokerID) error {
	if err := json.Unmarshal(data, &i.rec); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	switch {
	case i.rec.FormatVersion > identityVersion:
		return fmt.Errorf("%w: version %d, this release knows %d", ErrNewerFormat, i.rec.FormatVersion, identityVersion)
	case i.rec.FormatVersion < 1 || i.rec.Incarnation == "" || strings.Contains(i.rec.Incarnation, "-"):
		return fmt.Errorf("%w: no format version or incarnation", ErrMalformed)
	case i.rec.BrokerID != broker:
		return fmt.Errorf("%w: it is broker %d's, this is broker %d", ErrBrokerMismatch, i.rec.BrokerID, broker)
	}
	return nil
}

// Broker is the broker's ID.
func (i *Identity) Broker() api.BrokerID { return i.record().BrokerID }

// Incarnation names this data directory: 12 random characters without '-'.
func (i *Identity) Incarnation() string { return i.record().Incarnation }

// ClusterID is empty until it is known. Give it to transport.Config.ClusterID and membership.
func (i *Identity) ClusterID() string { return i.record().ClusterID }

// Pledged is the ID of the cluster that this broker has promised to begin; empty: none. Give it to transport.Config.Pledged.
func (i *Identity) Pledged() string {
	if p := i.record().Pledge; p != nil {
		return p.ClusterID
	}
	return ""
}

// Changed returns a channel that is closed once ClusterID is known; tell membership then.
func (i *Identity) Changed() <-chan struct{} { return i.changed }

func (i *Identity) record() identityRecord {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.rec
}

// Learn records the cluster's ID durably. Again with the same ID it does nothing; ErrClusterMismatch with another, also while the broker is
// pledged to begin another. Give it to transport.Config.Learned.
func (i *Identity) Learn(clusterID string) error {
	if clusterID == "" {
		return nil
	}
	known := false
	err := i.update(func(r *identityRecord) error {
		known = r.ClusterID != ""
		own := r.ClusterID
		if own == "" && r.Pledge != nil {
			own = r.Pledge.ClusterID
		}
		if own != "" && own != clusterID {
			return fmt.Errorf("%w: this broker is of cluster %s, not %s", ErrClusterMismatch, own, clusterID)
		}
		r.ClusterID = clusterID
		return nil
	})
	if err == nil && !known {
		close(i.changed)
	}
	return err
}

// pledge promises the broker to one beginning. The same pledge again succeeds. ErrPledged if there is another one, ErrClusterMismatch if the
// broker has a cluster already.
func (i *Identity) pledge(p Pledge) error {
	return i.update(func(r *identityRecord) error {
		if r.ClusterID != "" && r.ClusterID != p.ClusterID {
			return fmt.Errorf("%w: broker %d is of cluster %s", ErrClusterMismatch, r.BrokerID, r.ClusterID)
		}
		if r.Pledge != nil && (r.Pledge.ClusterID != p.ClusterID || !slices.Equal(r.Pledge.Set, p.Set)) {
			return fmt.Errorf("%w: broker %d has promised to begin cluster %s with brokers %v, and refuses cluster %s with brokers %v",
				ErrPledged, r.BrokerID, r.Pledge.ClusterID, r.Pledge.Set, p.ClusterID, p.Set)
		}
		r.Pledge = &p
		return nil
	})
}

// setFounders fixes the list of those that the cluster begins with.
func (i *Identity) setFounders(f []Founder) error {
	return i.update(func(r *identityRecord) error { r.Founders = f; return nil })
}

// setMember notes that the metadata group's files exist from now on.
func (i *Identity) setMember() error {
	return i.update(func(r *identityRecord) error { r.Member = true; return nil })
}

// update changes the file durably, then the memory: what a method has answered is never forgotten by a crash.
func (i *Identity) update(change func(*identityRecord) error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	next := i.rec
	if err := change(&next); err != nil {
		return err
	}
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if old, err := i.readFile(); err == nil && string(old) == string(data)+"\n" {
		i.rec = next
		return nil
	}
	if err := i.writeDurably(append(data, '\n')); err != nil {
		return err
	}
	i.rec = next
	return nil
}

func (i *Identity) readFile() ([]byte, error) {
	f, err := i.fs.Open(i.path())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > identityBytesMax {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrMalformed, size)
	}
	data := make([]byte, size)
	if n, err := f.ReadAt(data, 0); err != nil && !(errors.Is(err, io.EOF) && n == len(data)) {
		return nil, err
	}
	return data, nil
}

// writeDurably replaces the file so that a crash leaves the old or the new content: the new file is on disk before its
// name replaces the old one, and the name is on disk before the call returns.
func (i *Identity) writeDurably(data []byte) error {
	tmp := i.path() + ".tmp"
	if err := i.writeAndSync(tmp, data); err != nil {
		return err
	}
	if err := i.fs.Rename(tmp, i.path()); err != nil {
		return err
	}
	return i.fs.SyncDir(i.dir)
}

func (i *Identity) writeAndSync(path string, data []byte) error {
	f, err := i.fs.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// randomName returns 26 random lower-case letters and digits (128 bits).
func randomName() string {
	var b [16]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
