package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// InitProducerID, versions 0 to 5. v2: flexible; v3: a producer may ask for its next epoch (KIP-360; a producer without transactions is given a
// new ID, as in Kafka).

func (s *Server) initProducerID(ctx context.Context, _ *request, req *kmsg.InitProducerIDRequest) reply {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	if req.TransactionalID != nil {
		resp.ErrorCode = errInvalidRequest
		return resp
	}
	id, err := s.broker.InitProducer(ctx)
	if err != nil {
		// Producers without transactions have no coordinator to look for: of the errors that they wait for, they all know this one.
		resp.ErrorCode = errCoordinatorLoading
		if !api.CodeOf(err).Retriable() {
			resp.ErrorCode = codeOf(err, group)
		}
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = id.ID, id.Epoch
	return resp
}
