package kafka

import (
	"context"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Metadata, versions 0 to 13. v1: null topics mean all; v4: auto-creation can be refused; v5: offline replicas; v7: leader epoch; v8:
// authorized operations (not told); v9: flexible; v10 and v12: topic IDs; v13: an error for the whole.

func (s *Server) metadata(ctx context.Context, r *request, req *kmsg.MetadataRequest) reply {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	var names []string
	var unknown []kmsg.MetadataResponseTopic
	if !(req.Topics == nil || req.Version == 0 && len(req.Topics) == 0) {
		names, unknown = s.metadataNames(req)
		if req.AllowAutoTopicCreation || req.Version < 4 {
			s.autoCreate(ctx, names)
		}
	}
	m, synced := s.current(ctx, names)
	s.fillCluster(resp, m, r.conn.listener)
	alive := aliveBrokers(m)
	away := unreachable(m, r.conn.listener)
	for _, t := range m.Topics {
		out := toTopic(t, alive, synced)
		for i := range out.Partitions {
			withoutListener(&out.Partitions[i], away, req.Version)
		}
		resp.Topics = append(resp.Topics, out)
	}
	resp.Topics = append(resp.Topics, unknown...)
	return resp
}

// current is the metadata of topics, which is brought up to date first if one of them is not known here or has no leader: the client may have heard
// from another broker that it is there. It is false if that was not possible: then topics that are called unknown may exist. nil means all topics.
func (s *Server) current(ctx context.Context, names []string) (api.Metadata, bool) {
	m := s.broker.Metadata(names)
	leaderless := func(p api.PartitionMetadata) bool { return p.Leader == api.NoBroker }
	if !slices.ContainsFunc(m.Topics, func(t api.TopicMetadata) bool { return t.Unknown || slices.ContainsFunc(t.Partitions, leaderless) }) {
		return m, true
	}
	synced := s.broker.SyncMetadata(ctx)
	return s.broker.Metadata(names), synced
}

func (s *Server) fillCluster(resp *kmsg.MetadataResponse, m api.Metadata, listener string) {
	brokers := toBrokers(m, listener)
	for _, b := range brokers {
		e := kmsg.NewMetadataResponseBroker()
		e.NodeID, e.Host, e.Port, e.Rack = b.id, b.host, b.port, b.rack
		resp.Brokers = append(resp.Brokers, e)
	}
	resp.ClusterID, resp.ControllerID = orNil(m.ClusterID), s.controller(m, brokers)
}

// metadataNames are the topics asked for, never nil. IDs that are not known are answered at once.
func (s *Server) metadataNames(req *kmsg.MetadataRequest) (names []string, unknown []kmsg.MetadataResponseTopic) {
	names = []string{}
	seen := map[string]bool{}
	for _, t := range req.Topics {
		name, code := s.topicNamed(orEmpty(t.Topic), t.TopicID, t.Topic == nil)
		if code != errNone {
			e := kmsg.NewMetadataResponseTopic()
			e.ErrorCode, e.TopicID = code, t.TopicID
			unknown = append(unknown, e)
			continue
		}
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	return names, unknown
}

// autoCreateMax bounds the topics that one request creates.
const autoCreateMax = 64

// autoCreate creates those topics that do not exist. What fails is unknown in the response.
func (s *Server) autoCreate(ctx context.Context, names []string) {
	if !s.broker.AutoCreateTopics() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, createWait)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(4)
	created := 0
	m, synced := s.current(ctx, names)
	if !synced {
		return
	}
	for _, t := range m.Topics {
		if !t.Unknown || created == autoCreateMax || strings.HasPrefix(t.Name, "__") {
			continue
		}
		created++
		g.Go(func() error {
			if _, err := s.broker.CreateTopic(ctx, api.CreateTopicRequest{Name: t.Name}); err != nil {
				s.log.Debug("creating a topic that a client asked for", "topic", t.Name, "error", err)
			}
			return nil
		})
	}
	_ = g.Wait()
}

// unreachable are the brokers that are there, but have no listener of that name.
func unreachable(m api.Metadata, listener string) map[int32]bool {
	out := map[int32]bool{}
	for _, e := range m.Brokers {
		if _, ok := toBroker(e, listener); !ok {
			out[int32(e.ID)] = true
		}
	}
	return out
}

// listenerErrorSince is the version of Metadata from which on clients know LISTENER_NOT_FOUND.
const listenerErrorSince = 6

// withoutListener says that the client cannot use the partition, if its leader has no listener of the name by which the client came.
func withoutListener(p *kmsg.MetadataResponseTopicPartition, away map[int32]bool, version int16) {
	if !away[p.Leader] {
		return
	}
	p.Leader, p.ErrorCode = -1, errListenerNotFound
	if version < listenerErrorSince {
		p.ErrorCode = errLeaderNotAvailable
	}
}

func toTopic(t api.TopicMetadata, alive map[api.BrokerID]bool, synced bool) kmsg.MetadataResponseTopic {
	e := kmsg.NewMetadataResponseTopic()
	e.Topic = text(t.Name)
	if t.Unknown {
		e.ErrorCode = unknownTopic(t.Name, synced)
		return e
	}
	e.TopicID, e.IsInternal = t.ID, t.Internal
	for _, p := range t.Partitions {
		e.Partitions = append(e.Partitions, toPartition(p, alive))
	}
	return e
}

func toPartition(p api.PartitionMetadata, alive map[api.BrokerID]bool) kmsg.MetadataResponseTopicPartition {
	out := kmsg.NewMetadataResponseTopicPartition()
	out.Partition, out.Leader, out.LeaderEpoch = p.Partition, int32(p.Leader), p.LeaderEpoch
	if p.Leader == api.NoBroker || !alive[p.Leader] {
		out.Leader, out.ErrorCode = -1, errLeaderNotAvailable
	}
	out.Replicas, out.ISR, out.OfflineReplicas = replicaLists(p, alive)
	return out
}

// unknownTopic tells a name that cannot be from one that is not there, and that from one of which this broker cannot tell (synced: current).
func unknownTopic(name string, synced bool) int16 {
	valid := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || slices.Contains([]rune("._-"), r)
	}
	if name == "" || name == "." || name == ".." || len(name) > 249 || strings.ContainsFunc(name, func(r rune) bool { return !valid(r) }) {
		return errInvalidTopic
	}
	if !synced {
		return errLeaderNotAvailable
	}
	return errUnknownTopicOrPartition
}
