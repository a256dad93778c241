package broker

import (
	"context"
	"slices"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/raftlog/vfs"
)

// LogDir implements api.Replicas.
func (b *Broker) LogDir(ctx context.Context) (api.LogDir, error) {
	out := api.LogDir{Path: b.cfg.DataDir, TotalBytes: -1, UsableBytes: -1}
	if n, err := b.replicas.fs().FreeBytes(b.cfg.DataDir); err == nil {
		out.UsableBytes = n
	}
	if n, err := vfs.TotalBytes(b.cfg.DataDir); err == nil {
		out.TotalBytes = n
	}
	here, partitions := b.openReplicasHere()
	leaders := b.leaderStatuses(ctx, partitions)
	for i, st := range here {
		r := api.LocalReplica{TopicPartition: partitions[i].TP(), SizeBytes: st.Bytes, Lag: -1}
		if leaders[i].Leads {
			r.Lag = lagOf(st, leaders[i])
		}
		out.Replicas = append(out.Replicas, r)
	}
	return out, nil
}

// lagOf is how many committed records a replica lacks. One that has stored all entries lacks none, even if it has not heard yet that they are committed.
func lagOf(replica, leader replicaStatus) int64 {
	if replica.LastIndex >= leader.LastIndex {
		return 0
	}
	return max(0, int64(leader.HighWatermark-replica.HighWatermark))
}

// openReplicasHere lists this broker's open replicas with their partitions, by name.
func (b *Broker) openReplicasHere() ([]replicaStatus, []*metadata.Partition) {
	list := b.replicas.all()
	slices.SortFunc(list, func(x, y *hosted) int {
		if c := strings.Compare(x.tp.Topic, y.tp.Topic); c != 0 {
			return c
		}
		return int(x.tp.Partition) - int(y.tp.Partition)
	})
	var statuses []replicaStatus
	var partitions []*metadata.Partition
	for _, h := range list {
		st := b.replicaStatus(replicaName{Group: h.group, ServerID: h.serverID})
		if _, p := h.assigned(); st.Open && p != nil {
			statuses, partitions = append(statuses, st), append(partitions, p)
		}
	}
	return statuses, partitions
}

// Producers implements api.Replicas.
func (b *Broker) Producers(ctx context.Context, tp api.TopicPartition) ([]api.ProducerState, error) {
	r, err := b.leadReplica(ctx, tp)
	if err != nil {
		return nil, err
	}
	list, err := r.Producers()
	if err != nil {
		return nil, b.apiError(err, &tp)
	}
	out := make([]api.ProducerState, len(list))
	for i, p := range list {
		out[i] = api.ProducerState{ProducerID: api.ProducerID{ID: p.ID, Epoch: p.Epoch}, LastSequence: p.LastSequence, LastTimestamp: p.LastTimestamp}
	}
	return out, nil
}
