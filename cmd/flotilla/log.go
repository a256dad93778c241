package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// logSearchDepth is how far below the directory given logs are looked for: enough for the directory of a broker, or that of 'flotilla dev'.
const logSearchDepth = 4

func (a *app) logCommand() *cobra.Command {
	return groupOf(&cobra.Command{
		Use:   "log",
		Short: "Look into the files of a stopped broker",
		Long: `Look into the files of a stopped broker, without changing anything.

DIR is the directory of one partition, or any directory above: then every partition's log below it is looked at. The directory
of a running broker is refused.`,
		Example: "  flotilla log verify /var/lib/flotilla\n  flotilla log dump /var/lib/flotilla/partitions/orders-0.* --records",
	}, a.logDumpCommand(), a.logVerifyCommand())
}

type dumpOptions struct {
	from, to uint64
	records  bool
}

func (a *app) logDumpCommand() *cobra.Command {
	var o dumpOptions
	cmd := &cobra.Command{
		Use:   "dump DIR",
		Short: "Say what is in a log: segments, checkpoints, entries",
		Long: `Say what is in a log: its segments, checkpoints and entries; with --records, the records too.

With -o json there is one object per line: {"entry": ...} for each entry and {"log": ...} at the end of each log.
It exits with 6 if it meets damage, naming the file and the position.`,
		Example: `  flotilla log dump /var/lib/flotilla/partitions/orders-0.17
  flotilla log dump /var/lib/flotilla/partitions/orders-0.17 --from-index 1000 --to-index 1010 --records
  flotilla log dump /var/lib/flotilla -o json | jq -c 'select(.log).log.segments[]'`,
		Args: exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			if o.to != 0 && o.to < o.from {
				return usageErrorf("--to-index %d is before --from-index %d", o.to, o.from)
			}
			return a.inspectAll(args[0], func(dir string) (*raftlog.Report, error) { return a.dumpLog(dir, o) })
		},
	}
	cmd.Flags().Uint64Var(&o.from, "from-index", 0, "first Raft index to show")
	cmd.Flags().Uint64Var(&o.to, "to-index", 0, "last Raft index to show; 0: no bound")
	cmd.Flags().BoolVar(&o.records, "records", false, "show the records of each batch")
	return cmd
}

func (a *app) logVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Read every byte of a log and check it",
		Long: `Read every frame and record batch of a log, check all checksums and the order of indexes and offsets, and say whether a
broker would open it. It exits with 6 if there is damage, naming the file and the position.

What an interrupted write left at the very end is no damage: it was never acknowledged, and the next start cuts it off.`,
		Example: "  flotilla log verify /var/lib/flotilla\n  flotilla log verify /var/lib/flotilla/partitions/orders-0.17 -o json",
		Args:    exactArgs("DIR"),
		RunE: func(_ *cobra.Command, args []string) error {
			return a.inspectAll(args[0], a.verifyLog)
		},
	}
}

// inspectAll calls inspect for every log at or below root, all of them even if some are damaged.
func (a *app) inspectAll(root string, inspect func(dir string) (*raftlog.Report, error)) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	dirs, err := findLogs(root)
	if err != nil {
		return err
	}
	var damaged int
	var errs []error
	for _, dir := range dirs {
		report, err := inspectLocked(dir, inspect)
		switch {
		case errors.Is(err, vfs.ErrLocked):
			errs = append(errs, withCode(exitRefused, fmt.Errorf("%s is in use: stop its broker first", dir)))
		case err != nil:
			errs = append(errs, fmt.Errorf("%s: %w", dir, err))
		case !report.Healthy():
			damaged++
		}
	}
	if damaged > 0 {
		errs = slices.Insert(errs, 0, withCode(exitBadData, fmt.Errorf("%d of %d log(s) damaged", damaged, len(dirs))))
	}
	return errors.Join(errs...)
}

// brokerLock is the file in a data directory that a running broker holds a lock on, and partitionsDir where its logs are.
const (
	brokerLock    = "LOCK"
	partitionsDir = "partitions"
)

// inspectLocked keeps a broker from starting while its log is looked at; raftlog.Inspect does the same for the one log. It makes no lock
// file where there is none, and does without a lock on files that it may not write, such as those of a read-only copy.
func inspectLocked(dir string, inspect func(dir string) (*raftlog.Report, error)) (report *raftlog.Report, err error) {
	parent := filepath.Dir(dir)
	file := filepath.Join(filepath.Dir(parent), brokerLock)
	if _, err := os.Stat(file); err != nil || filepath.Base(parent) != partitionsDir {
		return inspect(dir)
	}
	lock, err := vfs.OS().Lock(file)
	switch {
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return inspect(dir)
	case err != nil:
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return inspect(dir)
}

// findLogs lists the log directories at or below root in order. Those that a running broker removes meanwhile are not among them.
func findLogs(root string) ([]string, error) {
	var dirs []string
	removed := func(path string, err error) bool { return path != root && errors.Is(err, fs.ErrNotExist) }
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if removed(path, err) {
			return nil
		}
		if err != nil {
			return err
		}
		if !d.IsDir() {
			return nil
		}
		is, err := raftlog.IsLogDir(vfs.OS(), path)
		if removed(path, err) {
			return fs.SkipDir
		}
		if err != nil {
			return err
		}
		if is {
			dirs = append(dirs, path)
			return fs.SkipDir
		}
		if rel, err := filepath.Rel(root, path); err == nil && strings.Count(rel, string(filepath.Separator)) >= logSearchDepth-1 {
			return fs.SkipDir
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, withCode(exitNotFound, err)
	case err != nil:
		return nil, err
	case len(dirs) == 0:
		return nil, withCode(exitNotFound, fmt.Errorf("%s: no log here or below", root))
	}
	return dirs, nil
}

func (a *app) verifyLog(dir string) (*raftlog.Report, error) {
	report, err := raftlog.Inspect(vfs.OS(), dir, raftlog.InspectOptions{Verify: true}, nil)
	if err != nil {
		return nil, err
	}
	return report, a.emit(report, func(w io.Writer) { writeVerdict(w, report) })
}

// writeVerdict is one line for a sound log, and one more for each thing to know of.
func writeVerdict(w io.Writer, r *raftlog.Report) {
	verdict := "ok"
	if !r.Healthy() {
		verdict = "DAMAGED"
	}
	fmt.Fprintf(w, "%s: %s, %s, %s, %s in offsets %d to %d\n", r.Dir, verdict, count(len(r.Segments), "segment"),
		count64(r.Entries, "entry"), count64(r.Records, "record"), r.FirstOffset, r.NextOffset-1)
	writeFindings(w, r)
}

func writeFindings(w io.Writer, r *raftlog.Report) {
	for _, d := range r.Damage {
		fmt.Fprintf(w, "  damage: %s, byte %d: %s\n", d.File, d.Position, d.Reason)
	}
	if t := r.TornTail; t != nil {
		fmt.Fprintf(w, "  interrupted write: %s, byte %d, %d bytes: %s; the next start cuts it off\n", t.File, t.Position, t.Bytes, t.Reason)
	}
	for _, f := range r.Leftovers {
		fmt.Fprintf(w, "  left over: %s; the next start removes it\n", f)
	}
	for _, s := range r.Segments {
		if s.Sealed && s.Index != "ok" {
			fmt.Fprintf(w, "  index of %s: %s\n", s.File, s.Index)
		}
	}
}

func (a *app) dumpLog(dir string, o dumpOptions) (*raftlog.Report, error) {
	opts := raftlog.InspectOptions{From: raftlog.Index(o.from), To: raftlog.Index(o.to)}
	report, err := raftlog.Inspect(vfs.OS(), dir, opts, func(e raftlog.EntryInfo) error { return a.dumpEntry(e, o.records) })
	if err != nil {
		return nil, err
	}
	if a.output == outputJSON {
		return report, writeJSON(a.stdout, struct {
			Log *raftlog.Report `json:"log"`
		}{report})
	}
	return report, a.emit(nil, func(w io.Writer) { writeLogReport(w, report) })
}

// dumpedEntry is an entry in JSON.
type dumpedEntry struct {
	raftlog.EntryInfo
	Records []consumedJSON `json:"records,omitempty"`
	Error   string         `json:"error,omitempty"`
}

func (a *app) dumpEntry(e raftlog.EntryInfo, withRecords bool) error {
	entry := dumpedEntry{EntryInfo: e}
	if withRecords && e.Batch != nil {
		records, err := record.Decode(e.Data, decodeLimitBytes)
		if err != nil {
			entry.Error = err.Error()
		}
		for i := range records {
			entry.Records = append(entry.Records, fromRecord("", -1, &records[i]).toJSON())
		}
	}
	if a.output == outputJSON {
		return writeJSON(a.stdout, struct {
			Entry dumpedEntry `json:"entry"`
		}{entry})
	}
	return a.emit(nil, func(w io.Writer) { writeEntry(w, &entry) })
}

func writeEntry(w io.Writer, e *dumpedEntry) {
	fmt.Fprintf(w, "index %d  term %d  %s  %s  %s at byte %d", e.Index, e.Term, e.Kind, humanize.IBytes(uint64(e.Bytes)), filepath.Base(e.File), e.Position)
	if b := e.Batch; b != nil {
		fmt.Fprintf(w, "  offsets %d-%d  %s  epoch %d", b.BaseOffset, b.LastOffset, b.Compression, b.LeaderEpoch)
		if b.ProducerID >= 0 {
			fmt.Fprintf(w, "  producer %d/%d sequence %d", b.ProducerID, b.ProducerEpoch, b.BaseSequence)
		}
		if !b.Accepted {
			fmt.Fprint(w, "  DEAD: its base offset did not match, no reader sees it")
		}
	}
	fmt.Fprintln(w)
	for _, r := range e.Records {
		fmt.Fprintf(w, "  offset %d  %s  key %s  value %s\n", r.Offset, r.Timestamp, quoteOrBase64(r.Key, r.KeyBase64), quoteOrBase64(r.Value, r.ValueBase64))
	}
	if e.Error != "" {
		fmt.Fprintf(w, "  records: %s\n", e.Error)
	}
}

func quoteOrBase64(text *string, bytes []byte) string {
	switch {
	case text != nil:
		return fmt.Sprintf("%q", *text)
	case bytes != nil:
		return "base64 " + base64.StdEncoding.EncodeToString(bytes)
	}
	return "null"
}

func writeLogReport(w io.Writer, r *raftlog.Report) {
	fmt.Fprintf(w, "log %s\n", r.Dir)
	closed := "not closed in order: the next start checks the newest segment"
	if r.CleanClose {
		closed = "closed in order"
	}
	fmt.Fprintf(w, "indexes %d to %d, offsets %d to %d, %s\n", r.FirstIndex, r.LastIndex, r.FirstOffset, r.NextOffset-1, closed)
	segments := newTable("SEGMENT", "INDEXES", "OFFSETS", "BYTES", "STATE", "CREATED", "INDEX FILE")
	for _, s := range r.Segments {
		state := "active"
		if s.Sealed {
			state = "sealed"
		}
		segments.row(filepath.Base(s.File), span(int64(s.FirstIndex), int64(s.LastIndex)), span(int64(s.BaseOffset), int64(s.NextOffset)-1),
			humanize.IBytes(uint64(s.Bytes)), state, formatMillis(s.CreatedAt.UnixMilli()), s.Index)
	}
	segments.write(w)
	if len(r.Checkpoints) > 0 {
		checkpoints := newTable("CHECKPOINT", "INDEX", "TERM", "NEXT OFFSET", "STATE", "ORIGIN", "SERVERS")
		for _, c := range r.Checkpoints {
			origin := "own"
			if c.Installed {
				origin = "from the leader"
			}
			checkpoints.row(filepath.Base(c.File), c.Index, c.Term, c.NextOffset, humanize.IBytes(uint64(c.StateBytes)), origin, strings.Join(c.Servers, ", "))
		}
		checkpoints.write(w)
	}
	writeFindings(w, r)
}

// span shows first to last, or nothing where last is before first.
func span(first, last int64) string {
	if last < first {
		return "none"
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func count(n int, noun string) string { return count64(int64(n), noun) }

// count64 says "1 segment", "2 segments", "3 entries".
func count64(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
