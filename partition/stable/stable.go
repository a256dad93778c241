package stable

import (
	"errors"
	"fmt"
	"io/fs"
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
	// ErrDamaged: the file, or what it has of a group, is not what was stored. Terms and votes are lost: replicas that have data here must
	// not return under their old server IDs.
	ErrDamaged = errors.New("stable store is damaged")
	// ErrNewerFormat: a newer release wrote the file.
	ErrNewerFormat = errors.New("stable store has a newer format")
)

// formatVersion is stored under the key "format" of the bucket "flotilla", as a big-endian u16 with a CRC-32C. Format 1 had no checks; it is read once and becomes format 2.
const formatVersion = 2

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
	values  map[transport.GroupID]map[string][]byte // what is durable, by bucket name, 0 and key; nil for a damaged value
	damaged map[transport.GroupID]error             // groups of whose values one was damaged at Open
	pending map[transport.GroupID]int               // writes of a group in queue or under way
	queue   []*write
	closed  bool
	err     error // ErrFailed and why

	total total // of the file; run's
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
		values: map[transport.GroupID]map[string][]byte{}, damaged: map[transport.GroupID]error{}, pending: map[transport.GroupID]int{},
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
	var c content
	if _, err = os.Stat(s.opts.Path); err == nil {
		if c, err = readContent(s.opts.Path); err != nil {
			return err
		}
		err = s.keepAll(c)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The list of free pages is not stored: nothing would check it. bbolt finds out by going through all pages, on a goroutine of its own, where a
	// damaged one would be a panic that nobody can recover; readContent has been there before.
	db, err := bbolt.Open(s.opts.Path, 0o600, &bbolt.Options{Timeout: s.opts.LockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return openError(err)
	}
	if c.format != formatVersion {
		err = s.upgrade(db, c)
	}
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

// Put stores a small marker of a group; it is durable when Put returns nil. On a full disk it returns ErrNoSpace at once. ErrDamaged as Damaged has it.
func (s *Store) Put(id transport.GroupID, key string, value []byte) error {
	return s.write(&write{group: id, bucket: bucketMarkers, key: key, value: nonNil(value)}, nil)
}

// Get returns a marker, nil when there is none. ErrDamaged as Damaged has it.
func (s *Store) Get(id transport.GroupID, key string) ([]byte, error) {
	return s.value(id, bucketMarkers, key)
}

// Replace removes all that is stored for the group and stores one marker, in one step.
func (s *Store) Replace(id transport.GroupID, key string, value []byte) error {
	return s.write(&write{group: id, clear: true, bucket: bucketMarkers, key: key, value: nonNil(value)}, nil)
}

// Delete removes all that is stored for the group, markers included: for when its replica's data is gone. The caller has
// closed the group's raft before.
func (s *Store) Delete(id transport.GroupID) error {
	return s.write(&write{group: id, clear: true}, nil)
}

func (s *Store) value(id transport.GroupID, bucket []byte, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.damaged[id]; err != nil {
		return nil, err
	}
	return slices.Clone(s.values[id][cacheKey(bucket, key)]), nil
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
