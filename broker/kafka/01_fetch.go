package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Fetch, versions 4 to 18. v5: log start offset; v7: sessions (KIP-227, 01_fetch_session.go); v9: leader epoch (KIP-320); v11: rack; v12: flexible;
// v13: topic IDs (KIP-516); v16: addresses of leaders elsewhere (KIP-951); v15, v17, v18: for replicas only.
//
// There are no transactions, so the last stable offset is the high watermark and both isolation levels read the same.

// fetchTarget is a partition to be fetched, and from where.
type fetchTarget struct {
	topic     string   // empty from version 13 on
	id        [16]byte // zero before version 13
	partition int32
	offset    int64
	maxBytes  int32
	epoch     int32 // that the client takes for the leader's; -1: none
	// name is the topic's; unknown says why there is none.
	name    string
	unknown int16
	// told: the client has been told of unknown already, and does not need to hear of it at once.
	told bool
}

func (s *Server) fetch(ctx context.Context, r *request, req *kmsg.FetchRequest) reply {
	out := &fetchReply{version: req.Version}
	out.hints.listener = r.conn.listener
	in := s.sessions.begin(req)
	if out.errorCode = in.code; in.code != errNone {
		return out
	}
	if req.Version >= 13 {
		s.nameTargets(in.targets)
	}
	asked, places := s.toFetch(req, in.targets)
	results, held, err := s.fetchHeld(ctx, asked)
	out.held = held
	if err != nil || len(results) != len(places) {
		out.release()
		return nil // the connection or the server is ending
	}
	got := make([]fetchedPartition, len(in.targets))
	for i := range in.targets {
		got[i] = fetchedPartition{partition: in.targets[i].partition, errorCode: in.targets[i].unknown, highWatermark: -1, logStart: -1, leader: noHint}
	}
	for i, r := range results {
		p := &got[places[i]]
		p.fill(r, in.targets[places[i]].epoch)
		if r.Err != nil {
			p.leader = out.hints.of(r.Err)
		}
	}
	out.sessionID, out.errorCode = in.end(got, out)
	return out
}

// fetchHeld fetches within the memory that there is for responses. Where others have all of it, what was fetched is dropped, and fetched again
// when there is room; a client that waits too long for that is told of no records.
func (s *Server) fetchHeld(ctx context.Context, asked api.FetchRequest) ([]api.FetchResult, holding, error) {
	h := holding{from: s.responses}
	results, err := s.broker.Fetch(ctx, asked)
	n := recordBytes(results)
	if err != nil || n == 0 {
		return results, h, err
	}
	if s.responses.TryAcquire(n) {
		h.bytes = n
		return results, h, nil
	}
	n = min(n, s.opts.MaxResponseBytes)
	waiting, cancel := context.WithTimeout(ctx, s.opts.StallTimeout)
	defer cancel()
	dropRecords(results)
	if s.responses.Acquire(waiting, n) != nil {
		return results, h, ctx.Err()
	}
	h.bytes = n
	asked.MaxBytes, asked.MaxWait = int(n), 0
	results, err = s.broker.Fetch(ctx, asked)
	if recordBytes(results) > n { // the first batch is another one now, and larger
		dropRecords(results)
	}
	return results, h, err
}

func recordBytes(results []api.FetchResult) (n int64) {
	for i := range results {
		for _, b := range results[i].Batches {
			n += int64(len(b))
		}
	}
	return n
}

func dropRecords(results []api.FetchResult) {
	for i := range results {
		results[i].Batches = nil
	}
}

// toFetch makes the request to the broker. places says which target each of its partitions is.
func (s *Server) toFetch(req *kmsg.FetchRequest, targets []fetchTarget) (asked api.FetchRequest, places []int) {
	asked = api.FetchRequest{
		MinBytes: int(min(max(req.MinBytes, 0), int32(s.opts.MaxFetchBytes))), MaxBytes: s.clampFetch(req.MaxBytes),
		MaxWait: min(max(time.Duration(req.MaxWaitMillis)*time.Millisecond, 0), maxWait),
	}
	asked.MinBytes = min(asked.MinBytes, asked.MaxBytes)
	if len(targets) == 0 {
		asked.MaxWait = 0 // there is nothing to wait for
	}
	for i := range targets {
		t := &targets[i]
		if t.unknown != errNone {
			if !t.told {
				asked.MaxWait = 0 // an error is told at once
			}
			continue
		}
		places = append(places, i)
		asked.Partitions = append(asked.Partitions, api.FetchPartition{
			TopicPartition: api.TopicPartition{Topic: t.name, Partition: t.partition}, Offset: offset(t.offset), MaxBytes: s.clampFetch(t.maxBytes),
		})
	}
	return asked, places
}

// nameTargets finds the topics of IDs. One that was never known here may be known to others: the metadata is brought up to date for it, once. One that was
// known and is no more was deleted, and perhaps made anew.
func (s *Server) nameTargets(targets []fetchTarget) {
	type found struct {
		name    string
		unknown int16
	}
	topics, synced := map[[16]byte]found{}, false
	for i := range targets {
		t := &targets[i]
		f, seen := topics[t.id]
		if !seen {
			name, ok := s.broker.TopicName(t.id)
			if !ok && t.name == "" && !t.told && !synced {
				synced = true
				name, ok = s.topicOfID(t.id)
			}
			switch {
			case ok:
				f = found{name, errNone}
			case t.name == "":
				f = found{"", errUnknownTopicID}
			default:
				f = found{t.name, s.goneTopic(t.name)}
			}
			topics[t.id] = f
		}
		t.name, t.unknown = f.name, f.unknown
	}
}

// goneTopic says what became of a topic whose ID is no longer known.
func (s *Server) goneTopic(name string) int16 {
	if m := s.broker.Metadata([]string{name}); len(m.Topics) == 1 && !m.Topics[0].Unknown {
		return errInconsistentTopicID
	}
	return errUnknownTopicOrPartition
}

// clampFetch keeps a size within the limits. Clients ask for 0 bytes only to learn where a partition stands; they get a batch all the same.
func (s *Server) clampFetch(n int32) int { return min(max(int(n), 1), s.opts.MaxFetchBytes) }

func (p *fetchedPartition) fill(r api.FetchResult, epoch int32) {
	if r.Err != nil {
		p.errorCode = codeOf(r.Err, data)
		return
	}
	if p.errorCode = checkEpoch(epoch, r.LeaderEpoch); p.errorCode != errNone {
		return
	}
	p.highWatermark, p.logStart, p.batches = int64(r.HighWatermark), int64(r.LogStart), r.Batches
}

// checkEpoch compares the leader epoch that a client knows (-1: none) with the leader's (KIP-320).
func checkEpoch(client, leader int32) int16 {
	switch {
	case client < 0 || client == leader:
		return errNone
	case client < leader:
		return errFencedLeaderEpoch
	}
	return errUnknownLeaderEpoch
}
