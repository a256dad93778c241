package kafka

import (
	"context"
	"errors"
	"net"
	"slices"
	"strconv"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/proto/record"
)

// topicNamed is the name of a topic in a request, which has an ID instead in newer versions.
func (s *Server) topicNamed(name string, id [16]byte, byID bool) (string, int16) {
	if !byID {
		return name, errNone
	}
	if name, ok := s.broker.TopicName(id); ok {
		return name, errNone
	}
	if name, ok := s.topicOfID(id); ok {
		return name, errNone
	}
	return "", errUnknownTopicID
}

// topicOfID looks for a topic that is not known here: another broker may have told the client.
func (s *Server) topicOfID(id [16]byte) (string, bool) {
	ctx, cancel := context.WithTimeout(s.aborting, callTimeout)
	defer cancel()
	s.broker.SyncMetadata(ctx)
	return s.broker.TopicName(id)
}

func recordCode(err error) int16 {
	switch {
	case errors.Is(err, record.ErrTooLarge):
		return errMessageTooLarge
	case errors.Is(err, record.ErrUnsupportedCompression):
		return errUnsupportedCompression
	case errors.Is(err, record.ErrInvalid):
		return errInvalidRecord
	}
	return errCorruptMessage
}

// kafkaBroker is a broker as Kafka's messages have it.
type kafkaBroker struct {
	id   int32
	host string
	port int32
	rack *string
}

// toBroker is false for a broker without a Kafka listener of that name.
func toBroker(e api.Endpoint, listener string) (kafkaBroker, bool) {
	host, port, err := net.SplitHostPort(e.KafkaAt(listener))
	if err != nil {
		return kafkaBroker{}, false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return kafkaBroker{}, false
	}
	return kafkaBroker{int32(e.ID), host, int32(n), orNil(e.Rack)}, true
}

func toBrokers(m api.Metadata, listener string) []kafkaBroker {
	var out []kafkaBroker
	for _, e := range m.Brokers {
		if b, ok := toBroker(e, listener); ok {
			out = append(out, b)
		}
	}
	return out
}

// controller is whom clients send administrative requests to. Every broker takes them, so it is this one if the controller has no Kafka listener.
func (s *Server) controller(m api.Metadata, brokers []kafkaBroker) int32 {
	for _, b := range brokers {
		if b.id == int32(m.Controller) {
			return b.id
		}
	}
	return int32(s.opts.Self)
}

// replicaLists are the replicas of a partition: all, those in sync on brokers that are there, and those on brokers that are not.
func replicaLists(p api.PartitionMetadata, alive map[api.BrokerID]bool) (all, in, out []int32) {
	for _, id := range p.Replicas {
		all = append(all, int32(id))
		switch {
		case !alive[id]:
			out = append(out, int32(id))
		case slices.Contains(p.InSync, id):
			in = append(in, int32(id))
		}
	}
	return all, in, out
}

func aliveBrokers(m api.Metadata) map[api.BrokerID]bool {
	out := make(map[api.BrokerID]bool, len(m.Brokers))
	for _, e := range m.Brokers {
		out[e.ID] = true
	}
	return out
}
