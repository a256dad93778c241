package broker

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/partition/transport"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// Errors of Start about the data directory.
var (
	// ErrDataDirInUse: another process has the data directory open. Stop it, or use another directory.
	ErrDataDirInUse = errors.New("data directory is in use")
	// ErrDataDirIncomplete: parts of the data directory were deleted that must not be lost apart from the rest. Restore them, or empty the whole
	// directory: then the broker comes back as a new one and its replicas are rebuilt from the others.
	ErrDataDirIncomplete = errors.New("data directory is incomplete")
)

// What is in a data directory:
//
//	LOCK         flock by the running process
//	broker.json  identity: format, cluster, broker ID, incarnation
//	metadata/    the metadata group's log and snapshots
//	stable.db    terms, votes and markers of all Raft groups
//	partitions/  one directory per replica: <topic>-<partition>.<group>-<generation>
//	             and <the same>.damaged-<unix seconds> for one that was set aside,
//	             and either with .deleted behind it while its files are being deleted
const (
	lockFile       = "LOCK"
	identityFile   = "broker.json"
	metadataDir    = "metadata"
	stableFile     = "stable.db"
	partitionsDir  = "partitions"
	damagedSuffix  = ".damaged-"
	deletedSuffix  = ".deleted"
	maxDirNameText = 180 // bytes of the topic's name: with all else a directory name stays below 255
)

// lockDataDir makes the directory and takes its lock, which the operating system releases with the process, however it ends.
func lockDataDir(fsys vfs.FS, dir string) (io.Closer, error) {
	if err := makeDataDir(fsys, dir); err != nil {
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	l, err := fsys.Lock(filepath.Join(dir, lockFile))
	if errors.Is(err, vfs.ErrLocked) {
		return nil, fmt.Errorf("%w: another process runs on %s; stop it or choose another --data-dir", ErrDataDirInUse, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w", err)
	}
	return l, nil
}

// makeDataDir makes the directory; what is in it is for the owner and the group.
func makeDataDir(fsys vfs.FS, dir string) error {
	if fsys == vfs.OS() {
		return os.MkdirAll(dir, 0o750)
	}
	return fsys.MkdirAll(dir)
}

// checkDataDir finds a directory of which a part is gone. The identity and the votes must not be lost while replicas remain: a broker
// that forgot its votes could elect two leaders in one term.
func checkDataDir(fsys vfs.FS, dir string) error {
	have := func(name string) bool {
		_, err := fsys.Stat(filepath.Join(dir, name))
		return err == nil
	}
	replicas, err := fsys.ReadDir(filepath.Join(dir, partitionsDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case !have(identityFile) && (have(stableFile) || len(replicas) > 0):
		return fmt.Errorf("%w: %s is missing in %s while there is other data: restore it, or empty the whole directory so that the broker starts anew",
			ErrDataDirIncomplete, identityFile, dir)
	case !have(stableFile) && len(replicas) > 0:
		return fmt.Errorf("%w: %s is missing in %s while there are replicas, whose votes it held: restore it, or empty the whole directory so that the broker starts anew",
			ErrDataDirIncomplete, stableFile, dir)
	}
	return nil
}

// replicaDir is a directory in partitions/, by its name.
type replicaDir struct {
	name       string
	group      transport.GroupID
	generation int32
	damaged    bool
	deleted    bool // nobody needs it, and nothing else is to become of it
}

// dirName makes the name of a replica's directory. Group and generation identify it; topic and partition are for people.
func dirName(tp api.TopicPartition, group transport.GroupID, generation int32) string {
	return fmt.Sprintf("%.*s-%d.%d-%d", maxDirNameText, tp.Topic, tp.Partition, group, generation)
}

// damagedName is what a directory is renamed to when it is set aside.
func damagedName(name string, now time.Time) string {
	return name + damagedSuffix + strconv.FormatInt(now.Unix(), 10)
}

// parseDirName is the reverse. Anything else in partitions/ is not ours, and is left alone.
func parseDirName(name string) (replicaDir, bool) {
	d := replicaDir{name: name}
	base, deleted := strings.CutSuffix(name, deletedSuffix)
	base, _, damaged := strings.Cut(base, damagedSuffix)
	d.damaged, d.deleted = damaged, deleted
	dot := strings.LastIndexByte(base, '.')
	if dot <= 0 {
		return d, false
	}
	groupText, generationText, ok := strings.Cut(base[dot+1:], "-")
	group, err1 := strconv.ParseUint(groupText, 10, 64)
	generation, err2 := strconv.ParseInt(generationText, 10, 32)
	d.group, d.generation = transport.GroupID(group), int32(generation)
	return d, ok && err1 == nil && err2 == nil && group > 0 && generation > 0
}

// listReplicaDirs reads partitions/. Names that are not ours are returned apart.
func listReplicaDirs(fsys vfs.FS, dir string) (dirs []replicaDir, foreign []string, err error) {
	infos, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("listing replicas: %w", err)
	}
	for _, info := range infos {
		d, ok := parseDirName(info.Name)
		if !ok || !info.Dir {
			foreign = append(foreign, info.Name)
			continue
		}
		dirs = append(dirs, d)
	}
	return dirs, foreign, nil
}
