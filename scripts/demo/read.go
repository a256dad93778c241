package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/client"
)

// readAll reads every partition from its beginning to its end, without a group.
func (st *stage) readAll(ctx context.Context) ([][]stored, error) {
	log := make([][]stored, partitionCount)
	for p := range int32(partitionCount) {
		records, err := st.read(ctx, p, client.Earliest())
		if err != nil {
			return nil, fmt.Errorf("reading partition %d: %w", p, err)
		}
		log[p] = records
	}
	return log, nil
}

// read reads a partition from a position to its end.
func (st *stage) read(ctx context.Context, partition int32, from client.Position) (got []stored, err error) {
	tp := client.TopicPartition{Topic: topic, Partition: partition}
	end := st.client.Admin().ListOffsets(ctx, map[client.TopicPartition]client.Position{tp: client.Latest()})[tp]
	if end.Err != nil {
		return nil, end.Err
	}
	consumer, err := st.client.NewConsumer()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, consumer.Close()) }()
	if err := consumer.Assign(client.Assignment{Topic: topic, Partition: partition, Start: from}); err != nil {
		return nil, err
	}
	for end.Offset > 0 {
		if at, ok := consumer.Position(tp); ok && at >= end.Offset {
			break
		}
		records, err := consumer.Poll(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range records {
			got = append(got, fromRecord(r))
		}
	}
	return got, nil
}

// replays reads the busiest partition again, from the middle by offset and from a day by time.
func (st *stage) replays(ctx context.Context, log [][]stored) error {
	partition, _, err := st.leaderOf(ctx, busiest(st.events))
	if err != nil {
		return err
	}
	records := log[partition]
	middle := int64(len(records) / 2)
	got, err := st.read(ctx, partition, client.AtOffset(middle))
	if err != nil {
		return err
	}
	if err := replayed(records, got, func(r stored) bool { return r.offset >= middle }); err != nil {
		return err
	}
	st.tell("Replayed partition %d from offset %d: %d records, the same as before.", partition, middle, len(got))

	day := time.UnixMilli(records[2*len(records)/3].timeMs).UTC().Truncate(24 * time.Hour)
	got, err = st.read(ctx, partition, client.AtTime(day))
	if err != nil {
		return err
	}
	if err := replayed(records, got, func(r stored) bool { return r.timeMs >= day.UnixMilli() }); err != nil {
		return err
	}
	st.tell("Replayed it from %s: %d records, the first is the first of that day (offset %d).", day.Format("2 January 2006"), len(got), got[0].offset)
	return nil
}

func replayed(records, got []stored, matches func(stored) bool) error {
	if v := verifyReplay(records, got, matches); v.count > 0 {
		return fmt.Errorf("the replay was wrong, %d violations:\n  %s", v.count, strings.Join(v.first, "\n  "))
	}
	if len(got) == 0 {
		return errors.New("the replay gave nothing")
	}
	return nil
}
