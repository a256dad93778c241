package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

type consumeOptions struct {
	group          string
	instanceID     string
	strategy       string
	partitions     []int32
	from           string
	until          string
	count          int64
	format         string
	commitInterval time.Duration

	start    startAt
	untilEnd bool
}

const consumeLong = `Consume a topic: all of its partitions, those given by --partitions, or as a member of a --group that shares
them with others.

--from is where to begin. In a group it only matters for partitions for which the group has committed nothing, and is earliest or latest.
--until is when to stop: at the end as it is when the command starts, after a number of records, or never (then Ctrl-C is a normal end).

A group's offsets are committed after the records were printed, every --commit-interval and at the end, and never beyond what was printed, so
every record is printed at least once; after a crash some are printed again.

Output: -o text prints values, one per line; -o raw the values' bytes and nothing else; -o json one object per record, where
keys and values that are not UTF-8 stand in keyBase64 and valueBase64. --format prints what you like:

` + formatHelp

const consumeExample = `  flotilla consume orders --from latest
  flotilla consume orders --until end --format '%p %o %T %k %s\n'
  flotilla consume orders --partitions 3 --from offset:1000 --until count:50
  flotilla consume orders --from time:2026-01-31T12:00:00Z --until end -o json
  flotilla consume orders --from last:10 --until end
  flotilla consume orders --group billing`

// pollInterval is how often a consumer with an end in view looks whether it is there although nothing arrives.
const pollInterval = 250 * time.Millisecond

func (a *app) consumeCommand() *cobra.Command {
	var o consumeOptions
	cmd := &cobra.Command{
		Use:         "consume TOPIC",
		Short:       "Print records of a topic",
		Long:        consumeLong,
		Example:     consumeExample,
		Args:        exactArgs("TOPIC"),
		Annotations: map[string]string{annotationFormats: outputRaw},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runConsume(cmd.Context(), args[0], o)
		},
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.group, "group", "g", "", "consume as a member of this group")
	fs.StringVar(&o.instanceID, "instance-id", "", "with --group: a name that keeps the partitions through a restart (static membership)")
	fs.StringVar(&o.strategy, "strategy", "", "with --group: range, roundrobin, sticky or cooperative-sticky (the default)")
	fs.Int32SliceVarP(&o.partitions, "partitions", "p", nil, "only these partitions; not with --group")
	fs.StringVar(&o.from, "from", "earliest", fromHelp)
	fs.StringVar(&o.until, "until", "forever", "when to stop: end, count:N or forever")
	fs.Int64VarP(&o.count, "count", "n", 0, "stop after so many records; the same as --until count:N")
	fs.StringVarP(&o.format, "format", "f", "", "format string for each record; see above")
	fs.DurationVar(&o.commitInterval, "commit-interval", 5*time.Second, "with --group: commit this often")
	return cmd
}

// parse checks the options against one another.
func (o *consumeOptions) parse() (err error) {
	if o.start, err = parseFrom(o.from); err != nil {
		return err
	}
	count := int64(0)
	if o.untilEnd, count, err = parseUntil(o.until); err != nil {
		return err
	}
	switch {
	case o.count < 0:
		return usageErrorf("--count is %d: it must not be negative", o.count)
	case o.count > 0 && count > 0:
		return usageErrorf("--count and --until count:N exclude one another")
	case o.group != "" && len(o.partitions) > 0:
		return usageErrorf("--group and --partitions exclude one another: a group divides the partitions itself")
	case o.group != "" && o.start.kind != startEarliest && o.start.kind != startLatest:
		return usageErrorf("--from %s does not go with --group: use earliest or latest, or 'flotilla group reset-offsets'", o.from)
	case o.group == "" && (o.instanceID != "" || o.strategy != ""):
		return usageErrorf("--instance-id and --strategy need --group")
	case o.commitInterval <= 0:
		return usageErrorf("--commit-interval is %s: it must be more than 0", o.commitInterval)
	}
	if count > 0 {
		o.count = count
	}
	return nil
}

func (s startAt) position() client.Position {
	switch s.kind {
	case startLatest:
		return client.Latest()
	case startOffset:
		return client.AtOffset(s.value)
	case startTime:
		return client.AtTime(time.UnixMilli(s.value))
	case startLast:
		return client.FromEnd(s.value)
	}
	return client.Earliest()
}

func (a *app) runConsume(ctx context.Context, topic string, o consumeOptions) error {
	if err := o.parse(); err != nil {
		return err
	}
	out, err := a.newRecordWriter(o.format)
	if err != nil {
		return err
	}
	err = a.withClient(func(c *client.Client) error {
		n, err := requireTopic(ctx, c, topic)
		if err != nil {
			return err
		}
		source, err := openSource(ctx, c, topic, n, o)
		if err != nil {
			return err
		}
		err = pump(ctx, source, out, o.count)
		return errors.Join(err, source.close())
	})
	if errors.Is(err, context.Canceled) && o.count == 0 && !o.untilEnd {
		return nil
	}
	return err
}

func openSource(ctx context.Context, c *client.Client, topic string, partitions int32, o consumeOptions) (recordSource, error) {
	wanted, err := choosePartitions(topic, partitions, o.partitions)
	if err != nil {
		return nil, err
	}
	var ends map[client.TopicPartition]int64
	if o.untilEnd {
		if ends, err = endOffsets(ctx, c, wanted); err != nil {
			return nil, err
		}
	}
	if o.group != "" {
		return newGroupSource(c, topic, ends, o)
	}
	return newPartitionSource(c, wanted, ends, o)
}

func choosePartitions(topic string, n int32, chosen []int32) ([]client.TopicPartition, error) {
	if len(chosen) == 0 {
		for p := range n {
			chosen = append(chosen, p)
		}
	}
	var tps []client.TopicPartition
	for _, p := range chosen {
		tp := client.TopicPartition{Topic: topic, Partition: p}
		if p < 0 || p >= n {
			return nil, withCode(exitNotFound, fmt.Errorf("topic %s has no partition %d: it has %s", topic, p, count(int(n), "partition")))
		}
		if !slices.Contains(tps, tp) {
			tps = append(tps, tp)
		}
	}
	return tps, nil
}

// endOffsets asks where the partitions end now.
func endOffsets(ctx context.Context, c *client.Client, tps []client.TopicPartition) (map[client.TopicPartition]int64, error) {
	return offsetsAt(ctx, c, tps, client.Latest())
}

// offsetsAt asks which offsets a position is at in the partitions.
func offsetsAt(ctx context.Context, c *client.Client, tps []client.TopicPartition, position client.Position) (map[client.TopicPartition]int64, error) {
	ask := map[client.TopicPartition]client.Position{}
	for _, tp := range tps {
		ask[tp] = position
	}
	offsets := map[client.TopicPartition]int64{}
	for tp, listed := range c.Admin().ListOffsets(ctx, ask) {
		if listed.Err != nil {
			return nil, listed.Err
		}
		offsets[tp] = listed.Offset
	}
	return offsets, nil
}

// recordSource is where consume gets records from.
type recordSource interface {
	// poll returns the next records. It returns none after a while if an end is in view, so that finished is looked at.
	poll(ctx context.Context) ([]*client.Record, error)
	// finished tells whether everything up to the end in view was polled.
	finished(ctx context.Context) (bool, error)
	// printed is called after what was polled has been written out; its last call comes before close.
	printed(ctx context.Context, records []*client.Record) error
	close() error
}

// pump moves records from the source to out until the end in view, or until limit records (0: no limit).
func pump(ctx context.Context, source recordSource, out *recordWriter, limit int64) error {
	var printed int64
	for {
		done, err := source.finished(ctx)
		if err != nil || done {
			return err
		}
		records, err := source.poll(ctx)
		if err != nil {
			return err
		}
		if limit > 0 && printed+int64(len(records)) > limit {
			records = records[:limit-printed]
		}
		if err := out.write(records); err != nil {
			return err
		}
		printed += int64(len(records))
		if err := source.printed(ctx, records); err != nil {
			return err
		}
		if limit > 0 && printed == limit {
			return nil
		}
	}
}

// pollFor polls, for limit at the most if it is not to wait for records for ever.
func pollFor(ctx context.Context, limited bool, limit time.Duration, poll func(context.Context) ([]*client.Record, error)) ([]*client.Record, error) {
	if !limited {
		return poll(ctx)
	}
	short, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	records, err := poll(short)
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		return records, nil
	}
	return records, err
}

// partitionSource reads given partitions from given positions.
type partitionSource struct {
	consumer *client.Consumer
	ends     map[client.TopicPartition]int64 // nil: no end in view
}

func newPartitionSource(c *client.Client, tps []client.TopicPartition, ends map[client.TopicPartition]int64, o consumeOptions) (*partitionSource, error) {
	var assignments []client.Assignment
	for _, tp := range tps {
		if end, ok := ends[tp]; ok && o.start.kind == startOffset && o.start.value > end {
			return nil, withCode(exitRefused, fmt.Errorf("offset %d is past the end of %s, which is at %d", o.start.value, tp, end))
		}
		assignments = append(assignments, client.Assignment{Topic: tp.Topic, Partition: tp.Partition, Start: o.start.position()})
	}
	consumer, err := c.NewConsumer()
	if err != nil {
		return nil, err
	}
	if err := consumer.Assign(assignments...); err != nil {
		return nil, errors.Join(err, consumer.Close())
	}
	return &partitionSource{consumer: consumer, ends: ends}, nil
}

func (s *partitionSource) poll(ctx context.Context) ([]*client.Record, error) {
	records, err := pollFor(ctx, s.ends != nil, pollInterval, s.consumer.Poll)
	return beforeEnds(records, s.ends), err
}

// finished forgets the partitions that are read up to their end.
func (s *partitionSource) finished(context.Context) (bool, error) {
	if s.ends == nil {
		return false, nil
	}
	for tp, end := range s.ends {
		if at, ok := s.consumer.Position(tp); end == 0 || ok && at >= end {
			s.consumer.Unassign(tp)
			delete(s.ends, tp)
		}
	}
	return len(s.ends) == 0, nil
}

func (s *partitionSource) printed(context.Context, []*client.Record) error { return nil }

func (s *partitionSource) close() error { return s.consumer.Close() }

// beforeEnds leaves out what was appended after the ends were looked up; ends nil means that there are none. Partitions that are not in ends
// have been read to the end.
func beforeEnds(records []*client.Record, ends map[client.TopicPartition]int64) []*client.Record {
	if ends == nil {
		return records
	}
	return slices.DeleteFunc(records, func(r *client.Record) bool { return r.Offset >= ends[r.TopicPartition()] })
}

// recordWriter prints records.
type recordWriter struct {
	w      *bufio.Writer
	append func(dst []byte, r *consumed) ([]byte, error)
	buf    []byte
}

func (a *app) newRecordWriter(format string) (*recordWriter, error) {
	out := &recordWriter{w: bufio.NewWriterSize(a.stdout, 64<<10)}
	switch {
	case format != "" && a.output != outputText:
		return nil, usageErrorf("--format and -o %s exclude one another", a.output)
	case a.output == outputJSON:
		out.append = appendJSON
		return out, nil
	case a.output == outputRaw:
		format = "%s"
	case format == "":
		format = `%s\n`
	}
	f, err := compileFormat(format)
	if err != nil {
		return nil, usageErrorf("--format: %w", err)
	}
	out.append = func(dst []byte, r *consumed) ([]byte, error) { return f.append(dst, r), nil }
	return out, nil
}

func appendJSON(dst []byte, r *consumed) ([]byte, error) {
	w := sliceWriter(dst)
	err := writeJSON(&w, r.toJSON())
	return w, err
}

type sliceWriter []byte

func (s *sliceWriter) Write(p []byte) (int, error) {
	*s = append(*s, p...)
	return len(p), nil
}

var _ io.Writer = (*sliceWriter)(nil)

// write prints records and flushes, so that nothing counts as printed that has not left the process.
func (o *recordWriter) write(records []*client.Record) error {
	for _, r := range records {
		var err error
		if o.buf, err = o.append(o.buf[:0], fromClient(r)); err != nil {
			return err
		}
		if _, err := o.w.Write(o.buf); err != nil {
			return err
		}
	}
	return o.w.Flush()
}

func fromClient(r *client.Record) *consumed {
	c := &consumed{
		topic: r.Topic, partition: r.Partition, offset: r.Offset, timestampMs: r.Timestamp.UnixMilli(), key: r.Key, value: r.Value,
	}
	for _, h := range r.Headers {
		c.headers = append(c.headers, header{key: h.Key, value: h.Value})
	}
	return c
}
