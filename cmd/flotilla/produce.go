package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/flotilla-log/flotilla/client"
	"github.com/flotilla-log/flotilla/proto/record"
)

type produceOptions struct {
	file            string
	key             keyOptions
	emptyAsNull     bool
	headers         []string
	partition       int32
	compression     string
	linger          time.Duration
	batch           byteSize
	maxLine         byteSize
	onError         string
	idempotence     bool
	deliveryTimeout time.Duration
	noProgress      bool
}

const (
	onErrorStop = "stop"
	onErrorSkip = "skip"
)

// rejectionsShown bounds how many rejected lines are told one by one.
const rejectionsShown = 20

// flushTimeout bounds how long an interrupted produce waits for what it has already sent.
const flushTimeout = 5 * time.Second

const produceLong = `Produce the lines of standard input, or of a file, as records: one line is one record. Input that is
compressed with gzip is recognised and decompressed.

A record's key is taken from its line by one of --key-json, --key-separator and --key-regex; without any of them, records have no key. The value is
the line without its newline; with --key-separator it is what stands behind the separator.

It is acknowledged when it is on the disks of a quorum (topic setting flush=quorum); there is no option to ask for less. A line that cannot be
turned into a record is rejected with its number. By default that stops the command, and nothing behind that line is produced; --on-error skip
goes on with the next line. In both cases it exits with 6.`

const produceExample = `  echo 'hello' | flotilla produce greetings
  flotilla produce flights --file flights.ndjson.gz --key-json origin --compression zstd
  printf 'ada:1\nbob:2\n' | flotilla produce scores --key-separator :
  flotilla produce access --file access.log --key-regex '^(\S+) '
  tail -F app.log | flotilla produce logs --linger 100ms`

const lingerHelp = "wait this long for more records to fill a batch; with the default, not while nothing is in flight"

func (a *app) produceCommand() *cobra.Command {
	var o produceOptions
	cmd := &cobra.Command{
		Use:     "produce TOPIC",
		Short:   "Produce lines as records",
		Long:    produceLong,
		Example: produceExample,
		Args:    exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runProduce(cmd.Context(), args[0], o)
		},
	}
	o.batch, o.maxLine = 256<<10, 1<<20
	fs := cmd.Flags()
	fs.StringVarP(&o.file, "file", "f", "", "read this file; empty or -: standard input")
	fs.StringVar(&o.key.jsonField, "key-json", "", "the key is this field of the line's JSON object; nested fields as a.b")
	fs.StringVar(&o.key.separator, "key-separator", "", `the key is what stands before the first of these (\t and \xHH understood)`)
	fs.StringVar(&o.key.regex, "key-regex", "", "the key is the first group, or else the whole, of what this regular expression matches")
	fs.BoolVar(&o.emptyAsNull, "empty-as-null", false, "an empty value becomes null, which is a tombstone")
	fs.StringArrayVarP(&o.headers, "header", "H", nil, "add a header NAME=VALUE to every record; may be repeated")
	fs.Int32VarP(&o.partition, "partition", "p", -1, "produce to this partition; -1: by key as Kafka does, or spread if there is none")
	fs.StringVarP(&o.compression, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	fs.DurationVar(&o.linger, "linger", client.DefaultLinger, lingerHelp)
	fs.Var(&o.batch, "batch-bytes", "size at which a batch is sent")
	fs.Var(&o.maxLine, "max-line-bytes", "reject longer lines")
	fs.StringVar(&o.onError, "on-error", onErrorStop, "what to do about a line that is no record: stop or skip")
	fs.BoolVar(&o.idempotence, "idempotence", true, "make retries store no record twice")
	fs.DurationVar(&o.deliveryTimeout, "delivery-timeout", 2*time.Minute, "give a record up after this long")
	fs.BoolVar(&o.noProgress, "no-progress", false, "no progress bar, even on a terminal")
	return cmd
}

// produceSummary is what produce prints at its end.
type produceSummary struct {
	Topic            string  `json:"topic"`
	Records          int64   `json:"records"`
	Bytes            int64   `json:"bytes"` // of keys and values
	Rejected         int64   `json:"rejected"`
	Failed           int64   `json:"failed"`
	Seconds          float64 `json:"seconds"`
	RecordsPerSecond float64 `json:"recordsPerSecond"`
	BytesPerSecond   float64 `json:"bytesPerSecond"`
}

// makeRecord turns a line, which it may keep, into a record.
type makeRecord func(line []byte) (*client.Record, error)

func (o *produceOptions) recordMaker(topic string) (makeRecord, error) {
	split, err := newSplitFunc(o.key)
	if err != nil {
		return nil, err
	}
	headers, err := parseHeaders(o.headers)
	if err != nil {
		return nil, err
	}
	return func(line []byte) (*client.Record, error) {
		key, value, err := split(line)
		if err != nil {
			return nil, err
		}
		if len(value) == 0 && o.emptyAsNull {
			value = nil
		} else if value == nil {
			value = []byte{}
		}
		return &client.Record{Topic: topic, Partition: o.partition, Key: key, Value: value, Headers: headers}, nil
	}, nil
}

func parseHeaders(pairs []string) ([]client.Header, error) {
	var headers []client.Header
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usageErrorf("--header %q is not NAME=VALUE", pair)
		}
		headers = append(headers, client.Header{Key: name, Value: []byte(value)})
	}
	return headers, nil
}

func (o *produceOptions) producerOptions() ([]client.ProducerOption, error) {
	compression, err := record.ParseCompression(o.compression)
	if err != nil {
		return nil, usageErrorf("--compression: %w", err)
	}
	opts := []client.ProducerOption{
		client.WithCompression(compression), client.WithLinger(o.linger), client.WithBatchBytes(int(o.batch)),
		client.WithMaxRecordBytes(int(o.maxLine) + int(o.maxLine)/2 + 64<<10), // a key out of the line may double parts of it
		client.WithIdempotence(o.idempotence), client.WithDeliveryTimeout(o.deliveryTimeout),
	}
	if o.partition >= 0 {
		opts = append(opts, client.WithPartitioner(client.Manual()))
	}
	return opts, nil
}

func (o *produceOptions) validate() error {
	switch {
	case o.onError != onErrorStop && o.onError != onErrorSkip:
		return usageErrorf("--on-error %q: use stop or skip", o.onError)
	case o.partition < -1:
		return usageErrorf("--partition is %d: use 0 or more, or -1", o.partition)
	case o.maxLine < 1 || o.maxLine > 64<<20:
		return usageErrorf("--max-line-bytes is %d: use 1 to 64MiB", o.maxLine)
	}
	return nil
}

func (a *app) runProduce(ctx context.Context, topic string, o produceOptions) error {
	if err := o.validate(); err != nil {
		return err
	}
	toRecord, err := o.recordMaker(topic)
	if err != nil {
		return err
	}
	opts, err := o.producerOptions()
	if err != nil {
		return err
	}
	in, size, err := a.openInput(o.file)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	return a.withClient(func(c *client.Client) error {
		n, err := requireTopic(ctx, c, topic)
		if err != nil {
			return err
		}
		if o.partition >= n {
			return withCode(exitNotFound, fmt.Errorf("topic %s has no partition %d: it has %s", topic, o.partition, count(int(n), "partition")))
		}
		p, err := c.NewProducer(opts...)
		if err != nil {
			return withCode(exitUsage, err)
		}
		bar := a.newProgress(o, size)
		run := &produceRun{producer: p, toRecord: toRecord, skip: o.onError == onErrorSkip, stderr: a.stderr, maxLine: int(o.maxLine)}
		return a.finishProduce(topic, run, run.run(ctx, bar.wrap(in)), bar)
	})
}

// openInput opens a file, or standard input, whose size is -1 as it is not known.
func (a *app) openInput(name string) (io.ReadCloser, int64, error) {
	if name == "" || name == "-" {
		return io.NopCloser(a.stdin), -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, withCode(exitUsage, err)
	}
	info, err := f.Stat()
	if err != nil || info.IsDir() {
		_ = f.Close()
		return nil, 0, usageErrorf("%s is not a file that can be read", name)
	}
	size := int64(-1)
	if info.Mode().IsRegular() {
		size = info.Size()
	}
	return f, size, nil
}

// finishProduce prints the summary, whatever happened.
func (a *app) finishProduce(topic string, run *produceRun, err error, bar *progress) error {
	bar.done()
	s := run.summary(topic)
	printErr := a.emit(s, func(w io.Writer) {
		fmt.Fprintf(w, "produced %s (%s) to %s in %.1f s: %s records/s, %s/s\n", count64(s.Records, "record"), humanize.Bytes(uint64(s.Bytes)),
			topic, s.Seconds, humanize.Comma(int64(s.RecordsPerSecond)), humanize.Bytes(uint64(s.BytesPerSecond)))
		if s.Rejected > 0 {
			fmt.Fprintf(w, "%s rejected\n", count64(s.Rejected, "line"))
		}
	})
	if err == nil && s.Rejected > 0 {
		err = withCode(exitBadData, fmt.Errorf("%s rejected", count64(s.Rejected, "line")))
	}
	return errors.Join(err, printErr)
}

// produceRun feeds lines to a producer. The producer calls back on goroutines of its own; mu guards what they change.
type produceRun struct {
	producer *client.Producer
	toRecord makeRecord
	skip     bool
	stderr   io.Writer
	maxLine  int

	started time.Time
	elapsed time.Duration

	mu             sync.Mutex
	rejected       int64
	records, bytes int64
	failed         int64
	firstFailure   error
}

// run produces in to its end, then waits for all acknowledgements.
func (r *produceRun) run(ctx context.Context, in io.Reader) error {
	r.started = time.Now()
	defer func() { r.elapsed = time.Since(r.started) }()
	// Reading may block for ever (standard input), so it has a goroutine of its own; if ctx ends first, that goroutine ends with the process,
	// and what it may still give to the producer is refused, since the producer is closed.
	fed := make(chan error, 1)
	go func() { fed <- r.feed(ctx, in) }()
	var err error
	select {
	case err = <-fed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	flushCtx := ctx
	if ctx.Err() != nil {
		var cancel context.CancelFunc
		flushCtx, cancel = context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
	}
	closeErr := r.producer.Close(flushCtx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.firstFailure != nil {
		return fmt.Errorf("%s not stored: %w", count64(r.failed, "record"), r.firstFailure)
	}
	if err == nil {
		err = closeErr
	}
	return err
}

// feed reads lines until the end, a rejected line (unless they are skipped), or a failed delivery.
func (r *produceRun) feed(ctx context.Context, in io.Reader) error {
	lines, err := newLineReader(in, r.maxLine)
	if err != nil {
		return withCode(exitBadData, err)
	}
	for ctx.Err() == nil && !r.hasFailed() {
		line, err := lines.next()
		if err == io.EOF {
			return nil
		}
		var rec *client.Record
		if err == nil {
			rec, err = r.toRecord(append([]byte(nil), line...))
		} else if !errors.Is(err, errLineTooLong) {
			return withCode(exitBadData, err)
		}
		if err != nil {
			if err := r.reject(lines.number, err); err != nil {
				return err
			}
			continue
		}
		r.producer.ProduceAsync(ctx, rec, r.delivered)
	}
	return ctx.Err()
}

// reject says which line is wrong and why. The error it returns stops the command.
func (r *produceRun) reject(number int, why error) error {
	r.mu.Lock()
	r.rejected++
	n := r.rejected
	r.mu.Unlock()
	if !r.skip {
		return withCode(exitBadData, fmt.Errorf("line %d: %w; nothing from it on was produced", number, why))
	}
	if n <= rejectionsShown {
		fmt.Fprintf(r.stderr, "line %d: %v\n", number, why)
	}
	if n == rejectionsShown {
		fmt.Fprintln(r.stderr, "further rejected lines are only counted")
	}
	return nil
}

func (r *produceRun) hasFailed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.firstFailure != nil
}

func (r *produceRun) delivered(rec *client.Record, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.failed++
		if r.firstFailure == nil {
			r.firstFailure = err
		}
		return
	}
	r.records++
	r.bytes += int64(len(rec.Key) + len(rec.Value))
}

func (r *produceRun) summary(topic string) produceSummary {
	r.mu.Lock()
	defer r.mu.Unlock()
	return produceSummary{
		Topic: topic, Records: r.records, Bytes: r.bytes, Rejected: r.rejected, Failed: r.failed, Seconds: r.elapsed.Seconds(),
		RecordsPerSecond: perSecond(float64(r.records), r.elapsed), BytesPerSecond: perSecond(float64(r.bytes), r.elapsed),
	}
}

// progress is a progress bar of the input read, or nothing.
type progress struct {
	bar *progressbar.ProgressBar
}

// newProgress shows a bar only to people: on a terminal, and in text output.
func (a *app) newProgress(o produceOptions, size int64) *progress {
	f, ok := a.stderr.(*os.File)
	if o.noProgress || a.output != outputText || !ok || !term.IsTerminal(int(f.Fd())) {
		return &progress{}
	}
	return &progress{bar: progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(f), progressbar.OptionSetDescription("producing"), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30),
	)}
}

func (p *progress) wrap(in io.Reader) io.Reader {
	if p.bar == nil {
		return in
	}
	return io.TeeReader(in, p.bar)
}

func (p *progress) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
