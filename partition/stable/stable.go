package stable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"github.com/flotilla-log/flotilla/partition/transport"
)

var (
	// ErrClosed comes from every write after Close.
	ErrClosed = errors.New("stable store is closed")
	// ErrFailed comes from every write after the file could not be written or synced for another reason than lack
	// of space. It is final; restart the broker.
	ErrFailed = errors.New("stable store has failed")
	// ErrNoSpace: the file system is full. Nothing was stored; retry later.
	ErrNoSpace = errors.New("no space left for the stable store")
	// ErrLocked: another process has the file open.
	ErrLocked = errors.New("stable store is in use by another process")
	// ErrDamaged: the file is not a readable store. Its terms and votes are lost: replicas that have data here must
	// not return under their old server IDs.
	ErrDamaged = errors.New("stable store is damaged")
	// ErrNewerFormat: a newer release wrote the file.
	ErrNewerFormat = errors.New("stable store has a newer format")
)

// formatVersion is stored under the key "format" of the bucket "flotilla", as a big-endian u16.
const formatVersion = 1

var (
	bucketFormat  = []byte("flotilla")
	keyFormat     = []byte("format")
	bucketConf    = []byte("conf") // raft-boltdb's name: terms and votes
	bucketMarkers = []byte("markers")
)

// Options configures a Store.
type Options struct {
	// Path is the file; its directory must exist.
	Path string
	// OnFailure is called once, from the store's goroutine, when the store fails for good. It must not call Close.
	OnFailure func(error)
	// LockTimeout is how long Open waits for another process to let go of the file; 0 means 1 s.
	LockTimeout time.Duration
	// Logger is for waiting on space and failures; nil means none.
	Logger hclog.Logger
	// Backend keeps the values instead of a file at Path, for simulated disks; nil means the file.
	Backend Backend
}

// Store is one broker's stable store. All stored values are also in memory, so reads never touch the file. Its goroutine
// commits; Close stops it and waits for it.
type Store struct {
	opts   Options
	log    hclog.Logger
	db     *bbolt.DB
	commit func([]*write) error // a seam: tests make it fail
	pause  func(attempt int) time.Duration

	wake chan struct{}
	stop chan struct{}
	done chan struct{}

	mu      sync.Mutex
	values  map[transport.GroupID]map[string][]byte // what is durable, by bucket name, 0 and key
	pending map[transport.GroupID]int               // writes of a group in queue or under way
	queue   []*write
	closed  bool
	err     error // ErrFailed and why
}

// Open opens or creates the store's file with default options.
func Open(path string) (*Store, error) { return OpenWith(Options{Path: path}) }

// OpenWith opens or creates the store's file. Errors: ErrLocked, ErrDamaged, ErrNewerFormat, or the file system's.
func OpenWith(opts Options) (*Store, error) {
	if opts.LockTimeout <= 0 {
		opts.LockTimeout = time.Second
	}
	if opts.Logger == nil {
		opts.Logger = hclog.NewNullLogger()
	}
	s := &Store{
		opts: opts, log: opts.Logger, pause: backoff,
		wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		values: map[transport.GroupID]map[string][]byte{}, pending: map[transport.GroupID]int{},
	}
	s.commit = s.commitBolt
	open := s.open
	if opts.Backend != nil {
		s.commit, open = s.commitBackend, s.openBackend
	}
	if err := open(); err != nil {
		return nil, fmt.Errorf("%s: %w", opts.Path, err)
	}
	go s.run()
	return s, nil
}

// open opens the file and loads it. bbolt panics, or touches memory that is not there, on some damaged files.
func (s *Store) open() (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	// The free list stays on disk (bbolt's default): without it bbolt scans the file at every start, on a goroutine of
	// its own, where a damaged page is a panic that nobody can recover.
	db, err := bbolt.Open(s.opts.Path, 0o600, &bbolt.Options{Timeout: s.opts.LockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return openError(err)
	}
	err = s.load(db)
	if err == nil {
		// A file that the directory forgets in a crash would take every vote with it.
		err = syncDir(filepath.Dir(s.opts.Path))
	}
	if err != nil {
		_ = db.Close()
		return err
	}
	s.db = db
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func openError(err error) error {
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// load creates the buckets in a new file and reads all values.
func (s *Store) load(db *bbolt.DB) error {
	known := false
	err := db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketFormat)
		if known = b != nil; !known {
			return nil
		}
		if err := checkFormat(b.Get(keyFormat)); err != nil {
			return err
		}
		return s.loadValues(tx)
	})
	if err != nil || known {
		return err
	}
	return db.Update(createBuckets)
}

func checkFormat(v []byte) error {
	if len(v) != 2 {
		return fmt.Errorf("%w: no format version", ErrDamaged)
	}
	if got := binary.BigEndian.Uint16(v); got > formatVersion {
		return fmt.Errorf("%w: version %d, this release knows up to %d", ErrNewerFormat, got, formatVersion)
	}
	return nil
}

func createBuckets(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketConf, bucketMarkers} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	b, err := tx.CreateBucket(bucketFormat)
	if err != nil {
		return err
	}
	return b.Put(keyFormat, binary.BigEndian.AppendUint16(nil, formatVersion))
}

func (s *Store) loadValues(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketConf, bucketMarkers} {
		b := tx.Bucket(name)
		if b == nil {
			return fmt.Errorf("%w: bucket %s is missing", ErrDamaged, name)
		}
		err := b.ForEach(func(k, v []byte) error {
			if len(k) < groupKeySize || v == nil {
				return fmt.Errorf("%w: key %q in bucket %s", ErrDamaged, k, name)
			}
			id := transport.GroupID(binary.BigEndian.Uint64(k))
			s.keep(id, cacheKey(name, string(k[groupKeySize:])), slices.Clone(v))
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) keep(id transport.GroupID, key string, value []byte) {
	if s.values[id] == nil {
		s.values[id] = map[string][]byte{}
	}
	s.values[id][key] = value
}

func cacheKey(bucket []byte, key string) string { return string(bucket) + "\x00" + key }

// Err returns why the store failed, nil while it works. A store that waits for space has not failed.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Has tells whether anything is stored for the group.
func (s *Store) Has(id transport.GroupID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.values[id]) > 0
}

// Groups lists the groups for which something is stored, in order.
func (s *Store) Groups() []transport.GroupID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []transport.GroupID
	for id, kv := range s.values {
		if len(kv) > 0 {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// Put stores a small marker of a group; it is durable when Put returns nil. On a full disk it returns ErrNoSpace at once.
func (s *Store) Put(id transport.GroupID, key string, value []byte) error {
	return s.write(&write{group: id, bucket: bucketMarkers, key: key, value: nonNil(value)}, nil)
}

// Get returns a marker, nil when there is none.
func (s *Store) Get(id transport.GroupID, key string) ([]byte, error) {
	return s.value(id, bucketMarkers, key), nil
}

// Delete removes all that is stored for the group, markers included: for when its replica's data is gone. The caller has
// closed the group's raft before.
func (s *Store) Delete(id transport.GroupID) error {
	return s.write(&write{group: id}, nil)
}

func (s *Store) value(id transport.GroupID, bucket []byte, key string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.values[id][cacheKey(bucket, key)])
}

func nonNil(b []byte) []byte { return append([]byte{}, b...) }

// Close commits what is queued, if there is space, closes the file and waits. Writes that wait for space end.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		<-s.done
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	if s.db == nil {
		return s.opts.Backend.Close()
	}
	return s.db.Close()
}
