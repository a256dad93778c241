package client

import (
	"strings"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Code says what went wrong. It is an error itself, so that errors.Is(err, client.CodeTopicAlreadyExists) works on whatever this
// package returns. What each code means is documented at ErrorCode in proto/flotilla/v1/common.proto.
type Code int32

// The codes of the gRPC API, and CodeUnavailable, which the client gives when a broker could not be reached or the connection broke.
const (
	CodeUnavailable              Code = -1
	CodeInternal                 Code = Code(pb.ErrorCode_ERROR_CODE_UNSPECIFIED)
	CodeInvalidRequest           Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_REQUEST)
	CodeUnknownTopicOrPartition  Code = Code(pb.ErrorCode_ERROR_CODE_UNKNOWN_TOPIC_OR_PARTITION)
	CodeNotLeader                Code = Code(pb.ErrorCode_ERROR_CODE_NOT_LEADER)
	CodeLeaderNotAvailable       Code = Code(pb.ErrorCode_ERROR_CODE_LEADER_NOT_AVAILABLE)
	CodeRequestTimedOut          Code = Code(pb.ErrorCode_ERROR_CODE_REQUEST_TIMED_OUT)
	CodeCorruptBatch             Code = Code(pb.ErrorCode_ERROR_CODE_CORRUPT_BATCH)
	CodeMessageTooLarge          Code = Code(pb.ErrorCode_ERROR_CODE_MESSAGE_TOO_LARGE)
	CodeInvalidRecord            Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_RECORD)
	CodeOffsetOutOfRange         Code = Code(pb.ErrorCode_ERROR_CODE_OFFSET_OUT_OF_RANGE)
	CodeOutOfOrderSequence       Code = Code(pb.ErrorCode_ERROR_CODE_OUT_OF_ORDER_SEQUENCE)
	CodeDuplicateSequence        Code = Code(pb.ErrorCode_ERROR_CODE_DUPLICATE_SEQUENCE)
	CodeProducerFenced           Code = Code(pb.ErrorCode_ERROR_CODE_PRODUCER_FENCED)
	CodeExpectedOffsetMismatch   Code = Code(pb.ErrorCode_ERROR_CODE_EXPECTED_OFFSET_MISMATCH)
	CodeStorageFull              Code = Code(pb.ErrorCode_ERROR_CODE_STORAGE_FULL)
	CodeThrottled                Code = Code(pb.ErrorCode_ERROR_CODE_THROTTLED)
	CodeStorageError             Code = Code(pb.ErrorCode_ERROR_CODE_STORAGE_ERROR)
	CodeNotCoordinator           Code = Code(pb.ErrorCode_ERROR_CODE_NOT_COORDINATOR)
	CodeCoordinatorNotAvailable  Code = Code(pb.ErrorCode_ERROR_CODE_COORDINATOR_NOT_AVAILABLE)
	CodeIllegalGeneration        Code = Code(pb.ErrorCode_ERROR_CODE_ILLEGAL_GENERATION)
	CodeUnknownMember            Code = Code(pb.ErrorCode_ERROR_CODE_UNKNOWN_MEMBER)
	CodeRebalanceInProgress      Code = Code(pb.ErrorCode_ERROR_CODE_REBALANCE_IN_PROGRESS)
	CodeInconsistentProtocol     Code = Code(pb.ErrorCode_ERROR_CODE_INCONSISTENT_PROTOCOL)
	CodeFencedInstance           Code = Code(pb.ErrorCode_ERROR_CODE_FENCED_INSTANCE)
	CodeInvalidSessionTimeout    Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_SESSION_TIMEOUT)
	CodeGroupNotEmpty            Code = Code(pb.ErrorCode_ERROR_CODE_GROUP_NOT_EMPTY)
	CodeUnknownGroup             Code = Code(pb.ErrorCode_ERROR_CODE_UNKNOWN_GROUP)
	CodeGroupFull                Code = Code(pb.ErrorCode_ERROR_CODE_GROUP_FULL)
	CodeOffsetMetadataTooLarge   Code = Code(pb.ErrorCode_ERROR_CODE_OFFSET_METADATA_TOO_LARGE)
	CodeTopicAlreadyExists       Code = Code(pb.ErrorCode_ERROR_CODE_TOPIC_ALREADY_EXISTS)
	CodeInvalidTopic             Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_TOPIC)
	CodeInvalidPartitions        Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_PARTITIONS)
	CodeInvalidReplicationFactor Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_REPLICATION_FACTOR)
	CodeInvalidConfig            Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_CONFIG)
	CodeControllerNotAvailable   Code = Code(pb.ErrorCode_ERROR_CODE_CONTROLLER_NOT_AVAILABLE)
	CodeUnknownBroker            Code = Code(pb.ErrorCode_ERROR_CODE_UNKNOWN_BROKER)
	CodePolicyViolation          Code = Code(pb.ErrorCode_ERROR_CODE_POLICY_VIOLATION)
	CodeShuttingDown             Code = Code(pb.ErrorCode_ERROR_CODE_SHUTTING_DOWN)
	CodeUnsupportedCompression   Code = Code(pb.ErrorCode_ERROR_CODE_UNSUPPORTED_COMPRESSION)
	CodeFencedLeaderEpoch        Code = Code(pb.ErrorCode_ERROR_CODE_FENCED_LEADER_EPOCH)
	CodeInvalidTimestamp         Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_TIMESTAMP)
	CodeInvalidReplicaAssignment Code = Code(pb.ErrorCode_ERROR_CODE_INVALID_REPLICA_ASSIGNMENT)
	CodeNoReassignmentInProgress Code = Code(pb.ErrorCode_ERROR_CODE_NO_REASSIGNMENT_IN_PROGRESS)
)

// Error makes a Code usable as the target of errors.Is.
func (c Code) Error() string { return c.String() }

// String is the code's name as in the gRPC API, without its prefix: NOT_LEADER.
func (c Code) String() string {
	switch c {
	case CodeUnavailable:
		return "UNAVAILABLE"
	case CodeInternal:
		return "INTERNAL"
	}
	return strings.TrimPrefix(pb.ErrorCode(c).String(), "ERROR_CODE_")
}
