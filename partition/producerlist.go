package partition

import "slices"

// ProducerState is what a partition remembers of an idempotent producer.
type ProducerState struct {
	ID            int64
	Epoch         int16
	LastSequence  int32
	LastTimestamp int64 // of the newest record in its last batch, Unix ms
}

// Producers lists the producers that the partition remembers, by ID. Only a leader that serves answers (ErrNotLeader).
func (r *Replica) Producers() ([]ProducerState, error) {
	if err := r.serves(); err != nil {
		return nil, err
	}
	out := r.producers()
	slices.SortFunc(out, func(a, b ProducerState) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out, nil
}

func (r *Replica) producers() []ProducerState {
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	out := make([]ProducerState, 0, r.state.producers.len())
	for p := r.state.producers.oldest; p != nil; p = p.newer {
		if p.n == 0 {
			continue
		}
		last := p.last()
		out = append(out, ProducerState{ID: p.id, Epoch: p.epoch, LastSequence: last.lastSequence(), LastTimestamp: last.timestamp})
	}
	return out
}
