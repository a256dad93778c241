package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
	"github.com/flotilla-log/flotilla/scripts/chaos/history"
)

// decodeLimit bounds a decompressed batch, in bytes.
const decodeLimit = 16 << 20

// replicas stops all brokers in order and reads the files of every replica.
func (e *env) replicas() error {
	var errs []error
	for _, i := range e.running() {
		errs = append(errs, e.cluster.Stop(i, stopWithin))
	}
	committed := map[history.Partition]int{}
	for _, f := range e.rec.History().Finals {
		committed[f.Partition] = len(f.Records)
	}
	for i := range len(e.cluster.Addrs()) {
		errs = append(errs, e.replicasOf(i, committed))
	}
	return errors.Join(errs...)
}

func (e *env) replicasOf(i int, committed map[history.Partition]int) error {
	dirs, err := filepath.Glob(filepath.Join(e.cluster.Dir(i), "partitions", "*"))
	if err != nil {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		p, ok := partitionOfDir(filepath.Base(dir))
		if is, err := raftlog.IsLogDir(vfs.OS(), dir); !ok || err != nil || !is {
			continue
		}
		if err := e.replica(i, p, dir, committed[p]); err != nil {
			errs = append(errs, fmt.Errorf("broker %d: %s: %w", i+1, p, err))
		}
	}
	return errors.Join(errs...)
}

// partitionOfDir reads "<topic>-<partition>.<group>".
func partitionOfDir(name string) (history.Partition, bool) {
	name, _, _ = strings.Cut(name, ".")
	at := strings.LastIndexByte(name, '-')
	if at < 0 {
		return history.Partition{}, false
	}
	id, err := strconv.ParseInt(name[at+1:], 10, 32)
	topic := name[:at]
	return history.Partition{Topic: topic, ID: int32(id)}, err == nil && (topic == eventsTopic || topic == condTopic || topic == bulkTopic)
}

// replica adds what the files hold of the committed records; what lies behind was never committed and may differ.
func (e *env) replica(i int, p history.Partition, dir string, committed int) error {
	rep := history.Replica{Broker: i + 1, Partition: p}
	report, err := raftlog.Inspect(vfs.OS(), dir, raftlog.InspectOptions{Verify: true}, func(entry raftlog.EntryInfo) error {
		if entry.Batch == nil || !entry.Batch.Accepted {
			return nil
		}
		records, err := record.Decode(entry.Data, decodeLimit)
		for _, r := range records {
			if int64(r.Offset) < int64(committed) {
				rep.Records = append(rep.Records, history.Read{Offset: int64(r.Offset), Value: digest(r.Value)})
			}
		}
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !report.Healthy() {
		return fmt.Errorf("damage: %v", report.Damage)
	}
	e.rec.Replica(rep)
	return nil
}
