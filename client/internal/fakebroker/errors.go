package fakebroker

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// retriable lists the codes that a broker marks so, as far as the fake uses them.
var retriable = map[pb.ErrorCode]bool{
	pb.ErrorCode_ERROR_CODE_NOT_LEADER: true, pb.ErrorCode_ERROR_CODE_LEADER_NOT_AVAILABLE: true, pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT: true,
	pb.ErrorCode_ERROR_CODE_STORAGE_FULL: true, pb.ErrorCode_ERROR_CODE_THROTTLED: true, pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION: true,
	pb.ErrorCode_ERROR_CODE_NOT_COORDINATOR: true, pb.ErrorCode_ERROR_CODE_COORDINATOR_NOT_AVAILABLE: true, pb.ErrorCode_ERROR_CODE_REBALANCE_IN_PROGRESS: true,
	pb.ErrorCode_ERROR_CODE_SHUTTING_DOWN: true,
}

func detail(code pb.ErrorCode, topic string, partition int32) *pb.ErrorDetail {
	return &pb.ErrorDetail{Code: code, Retriable: retriable[code], Topic: topic, Partition: partition}
}

// fail makes a gRPC error with a detail.
func fail(c codes.Code, d *pb.ErrorDetail) error {
	st, err := status.New(c, "fake: "+d.Code.String()).WithDetails(d)
	if err != nil {
		panic(err)
	}
	return st.Err()
}
