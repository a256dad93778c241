package partition

import "slices"

// Status describes the replica.
func (r *Replica) Status() Status {
	addr, id := r.raft.LeaderWithID()
	s := Status{
		State: r.raft.State(), Ready: r.IsLeader(), Leader: addr, LeaderID: id, Term: r.raft.CurrentTerm(),
		LastIndex: r.raft.LastIndex(), CommitIndex: r.raft.CommitIndex(),
		Bytes: r.log.Size(), LocalID: r.cfg.LocalID,
		Servers: r.raft.GetConfiguration().Configuration().Servers,
	}
	if err := r.failure.Load(); err != nil {
		s.Err = *err
	}
	r.state.mu.RLock()
	defer r.state.mu.RUnlock()
	s.AppliedIndex = uint64(r.state.applied)
	s.ConfigurationCommitted = slices.Equal(s.Servers, r.state.config.Servers)
	s.LogStart, s.HighWatermark = r.state.logStart, r.state.next
	s.Digest, s.Producers = r.state.digest, r.state.producers.len()
	return s
}
