package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeCluster, versions 0 to 2. v1: endpoints of brokers or controllers (KIP-919; here only brokers have any); v2: fenced brokers.

const brokerEndpoints = 1

func (s *Server) describeCluster(_ context.Context, r *request, req *kmsg.DescribeClusterRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	if req.Version >= 1 && req.EndpointType != brokerEndpoints {
		resp.ErrorCode, resp.ErrorMessage = errUnsupportedEndpointType, text("only brokers have endpoints")
		return resp
	}
	m := s.broker.Metadata([]string{})
	brokers := toBrokers(m, r.conn.listener)
	resp.ClusterID, resp.ControllerID = m.ClusterID, s.controller(m, brokers)
	for _, b := range brokers {
		e := kmsg.NewDescribeClusterResponseBroker()
		e.NodeID, e.Host, e.Port, e.Rack = b.id, b.host, b.port, b.rack
		resp.Brokers = append(resp.Brokers, e)
	}
	return resp
}
