package grpcapi

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/broker/api"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// statusCodes is the one table from errors to gRPC status codes, as documented at ErrorCode in common.proto.
var statusCodes = map[api.Code]codes.Code{
	api.CodeInternal:                 codes.Internal,
	api.CodeInvalidRequest:           codes.InvalidArgument,
	api.CodeUnknownTopicOrPartition:  codes.NotFound,
	api.CodeNotLeader:                codes.FailedPrecondition,
	api.CodeLeaderNotAvailable:       codes.Unavailable,
	api.CodeRequestTimedOut:          codes.DeadlineExceeded,
	api.CodeCorruptBatch:             codes.DataLoss,
	api.CodeMessageTooLarge:          codes.InvalidArgument,
	api.CodeInvalidRecord:            codes.InvalidArgument,
	api.CodeOffsetOutOfRange:         codes.OutOfRange,
	api.CodeOutOfOrderSequence:       codes.FailedPrecondition,
	api.CodeDuplicateSequence:        codes.AlreadyExists,
	api.CodeProducerFenced:           codes.Aborted,
	api.CodeExpectedOffsetMismatch:   codes.FailedPrecondition,
	api.CodeStorageFull:              codes.ResourceExhausted,
	api.CodeThrottled:                codes.ResourceExhausted,
	api.CodeStorageError:             codes.Unavailable,
	api.CodeNotCoordinator:           codes.FailedPrecondition,
	api.CodeCoordinatorNotAvailable:  codes.Unavailable,
	api.CodeIllegalGeneration:        codes.Aborted,
	api.CodeUnknownMember:            codes.NotFound,
	api.CodeRebalanceInProgress:      codes.Aborted,
	api.CodeInconsistentProtocol:     codes.FailedPrecondition,
	api.CodeFencedInstance:           codes.Aborted,
	api.CodeInvalidSessionTimeout:    codes.InvalidArgument,
	api.CodeGroupNotEmpty:            codes.FailedPrecondition,
	api.CodeUnknownGroup:             codes.NotFound,
	api.CodeGroupFull:                codes.ResourceExhausted,
	api.CodeOffsetMetadataTooLarge:   codes.InvalidArgument,
	api.CodeTopicAlreadyExists:       codes.AlreadyExists,
	api.CodeInvalidTopic:             codes.InvalidArgument,
	api.CodeInvalidPartitions:        codes.InvalidArgument,
	api.CodeInvalidReplicationFactor: codes.FailedPrecondition,
	api.CodeInvalidConfig:            codes.InvalidArgument,
	api.CodeControllerNotAvailable:   codes.Unavailable,
	api.CodeUnknownBroker:            codes.NotFound,
	api.CodePolicyViolation:          codes.FailedPrecondition,
	api.CodeShuttingDown:             codes.Unavailable,
	api.CodeUnsupportedCompression:   codes.InvalidArgument,
	api.CodeFencedLeaderEpoch:        codes.Aborted,
	api.CodeInvalidTimestamp:         codes.InvalidArgument,
	// Only Kafka clients ask for it, and they are not served here.
	api.CodeMemberIDRequired: codes.FailedPrecondition,

	api.CodeElectionNotNeeded:           codes.FailedPrecondition,
	api.CodePreferredLeaderNotAvailable: codes.Unavailable,
	api.CodeEligibleLeadersNotAvailable: codes.Unavailable,
	api.CodeInvalidReplicaAssignment:    codes.InvalidArgument,
	api.CodeNoReassignmentInProgress:    codes.FailedPrecondition,
	api.CodeReassignmentInProgress:      codes.FailedPrecondition,
	api.CodeGroupSubscribedToTopic:      codes.FailedPrecondition,
}

// asError makes an *api.Error of any error. The cause of a cancelled or late request is kept apart from bugs.
func asError(err error) *api.Error {
	var e *api.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.Canceled):
		return &api.Error{Code: api.CodeRequestTimedOut, Message: "the request was cancelled", Cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: api.CodeRequestTimedOut, Message: "the request's deadline passed", Cause: err}
	}
	return &api.Error{Code: api.CodeInternal, Message: err.Error(), Cause: err}
}

// toDetail is the typed part of an error.
func toDetail(e *api.Error) *pb.ErrorDetail {
	d := &pb.ErrorDetail{
		Code:           pb.ErrorCode(e.Code),
		Retriable:      e.Code.Retriable(),
		Partition:      -1,
		LogStartOffset: int64(e.LogStart),
		HighWatermark:  int64(e.HighWatermark),
	}
	if e.Leader != nil {
		d.Leader = toEndpoint(*e.Leader)
	}
	if e.TP != nil {
		d.Topic, d.Partition = clip(e.TP.Topic), e.TP.Partition
	}
	return d
}

// maxErrorText bounds the texts of errors: they quote what was asked for, and gRPC sends them as headers, which clients limit.
const maxErrorText = 1000

func clip(s string) string {
	if len(s) <= maxErrorText {
		return s
	}
	return strings.ToValidUTF8(s[:maxErrorText], "") + "..."
}

// toStatus is what a call returns for err; nil stays nil.
func toStatus(err error) error {
	if err == nil {
		return nil
	}
	e := asError(err)
	code, ok := statusCodes[e.Code]
	if !ok {
		code = codes.Unknown
	}
	if errors.Is(e.Cause, context.Canceled) {
		code = codes.Canceled
	}
	st := status.New(code, clip(e.Message))
	if withDetail, derr := st.WithDetails(toDetail(e)); derr == nil {
		st = withDetail
	}
	return st.Err()
}

func toEndpoint(e api.Endpoint) *pb.BrokerEndpoint {
	return &pb.BrokerEndpoint{BrokerId: int32(e.ID), Address: e.Host}
}

func invalid(format string, args ...any) *api.Error {
	return api.Errorf(api.CodeInvalidRequest, format, args...)
}
