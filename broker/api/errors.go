package api

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/flotilla-log/flotilla/proto/record"
)

// Code says what went wrong. Front ends map codes to their protocol's in one table each.
type Code int16

// The codes, numbered and documented as ErrorCode in proto/flotilla/v1/common.proto.
const (
	CodeInternal                 Code = 0
	CodeInvalidRequest           Code = 1
	CodeUnknownTopicOrPartition  Code = 2
	CodeNotLeader                Code = 3
	CodeLeaderNotAvailable       Code = 4
	CodeRequestTimedOut          Code = 5
	CodeCorruptBatch             Code = 6
	CodeMessageTooLarge          Code = 7
	CodeInvalidRecord            Code = 8
	CodeOffsetOutOfRange         Code = 9
	CodeOutOfOrderSequence       Code = 10
	CodeDuplicateSequence        Code = 11
	CodeProducerFenced           Code = 12
	CodeExpectedOffsetMismatch   Code = 13
	CodeStorageFull              Code = 14
	CodeThrottled                Code = 15
	CodeStorageError             Code = 16
	CodeNotCoordinator           Code = 17
	CodeCoordinatorNotAvailable  Code = 18
	CodeIllegalGeneration        Code = 19
	CodeUnknownMember            Code = 20
	CodeRebalanceInProgress      Code = 21
	CodeInconsistentProtocol     Code = 22
	CodeFencedInstance           Code = 23
	CodeInvalidSessionTimeout    Code = 24
	CodeGroupNotEmpty            Code = 25
	CodeUnknownGroup             Code = 26
	CodeGroupFull                Code = 27
	CodeOffsetMetadataTooLarge   Code = 28
	CodeTopicAlreadyExists       Code = 29
	CodeInvalidTopic             Code = 30
	CodeInvalidPartitions        Code = 31
	CodeInvalidReplicationFactor Code = 32
	CodeInvalidConfig            Code = 33
	CodeControllerNotAvailable   Code = 34
	CodeUnknownBroker            Code = 35
	CodePolicyViolation          Code = 36
	CodeShuttingDown             Code = 37
	CodeUnsupportedCompression   Code = 38
	CodeFencedLeaderEpoch        Code = 39
	CodeInvalidTimestamp         Code = 40
	// CodeMemberIDRequired is not an error to people: it tells a Kafka client which member ID to come back with (Error.MemberID).
	CodeMemberIDRequired Code = 41
	// The rest is what administrators meet.
	CodeElectionNotNeeded           Code = 42
	CodePreferredLeaderNotAvailable Code = 43
	CodeEligibleLeadersNotAvailable Code = 44
	CodeInvalidReplicaAssignment    Code = 45
	CodeNoReassignmentInProgress    Code = 46
	CodeReassignmentInProgress      Code = 47
	CodeGroupSubscribedToTopic      Code = 48
)

// codeNames are those of the gRPC API, without their prefix.
var codeNames = map[Code]string{
	CodeInternal:                    "INTERNAL",
	CodeInvalidRequest:              "INVALID_REQUEST",
	CodeUnknownTopicOrPartition:     "UNKNOWN_TOPIC_OR_PARTITION",
	CodeNotLeader:                   "NOT_LEADER",
	CodeLeaderNotAvailable:          "LEADER_NOT_AVAILABLE",
	CodeRequestTimedOut:             "REQUEST_TIMED_OUT",
	CodeCorruptBatch:                "CORRUPT_BATCH",
	CodeMessageTooLarge:             "MESSAGE_TOO_LARGE",
	CodeInvalidRecord:               "INVALID_RECORD",
	CodeOffsetOutOfRange:            "OFFSET_OUT_OF_RANGE",
	CodeOutOfOrderSequence:          "OUT_OF_ORDER_SEQUENCE",
	CodeDuplicateSequence:           "DUPLICATE_SEQUENCE",
	CodeProducerFenced:              "PRODUCER_FENCED",
	CodeExpectedOffsetMismatch:      "EXPECTED_OFFSET_MISMATCH",
	CodeStorageFull:                 "STORAGE_FULL",
	CodeThrottled:                   "THROTTLED",
	CodeStorageError:                "STORAGE_ERROR",
	CodeNotCoordinator:              "NOT_COORDINATOR",
	CodeCoordinatorNotAvailable:     "COORDINATOR_NOT_AVAILABLE",
	CodeIllegalGeneration:           "ILLEGAL_GENERATION",
	CodeUnknownMember:               "UNKNOWN_MEMBER",
	CodeRebalanceInProgress:         "REBALANCE_IN_PROGRESS",
	CodeInconsistentProtocol:        "INCONSISTENT_PROTOCOL",
	CodeFencedInstance:              "FENCED_INSTANCE",
	CodeInvalidSessionTimeout:       "INVALID_SESSION_TIMEOUT",
	CodeGroupNotEmpty:               "GROUP_NOT_EMPTY",
	CodeUnknownGroup:                "UNKNOWN_GROUP",
	CodeGroupFull:                   "GROUP_FULL",
	CodeOffsetMetadataTooLarge:      "OFFSET_METADATA_TOO_LARGE",
	CodeTopicAlreadyExists:          "TOPIC_ALREADY_EXISTS",
	CodeInvalidTopic:                "INVALID_TOPIC",
	CodeInvalidPartitions:           "INVALID_PARTITIONS",
	CodeInvalidReplicationFactor:    "INVALID_REPLICATION_FACTOR",
	CodeInvalidConfig:               "INVALID_CONFIG",
	CodeControllerNotAvailable:      "CONTROLLER_NOT_AVAILABLE",
	CodeUnknownBroker:               "UNKNOWN_BROKER",
	CodePolicyViolation:             "POLICY_VIOLATION",
	CodeShuttingDown:                "SHUTTING_DOWN",
	CodeUnsupportedCompression:      "UNSUPPORTED_COMPRESSION",
	CodeFencedLeaderEpoch:           "FENCED_LEADER_EPOCH",
	CodeInvalidTimestamp:            "INVALID_TIMESTAMP",
	CodeMemberIDRequired:            "MEMBER_ID_REQUIRED",
	CodeElectionNotNeeded:           "ELECTION_NOT_NEEDED",
	CodePreferredLeaderNotAvailable: "PREFERRED_LEADER_NOT_AVAILABLE",
	CodeEligibleLeadersNotAvailable: "ELIGIBLE_LEADERS_NOT_AVAILABLE",
	CodeInvalidReplicaAssignment:    "INVALID_REPLICA_ASSIGNMENT",
	CodeNoReassignmentInProgress:    "NO_REASSIGNMENT_IN_PROGRESS",
	CodeReassignmentInProgress:      "REASSIGNMENT_IN_PROGRESS",
	CodeGroupSubscribedToTopic:      "GROUP_SUBSCRIBED_TO_TOPIC",
}

// String is the code's name, such as NOT_LEADER.
func (c Code) String() string {
	if name, ok := codeNames[c]; ok {
		return name
	}
	return "CODE_" + strconv.Itoa(int(c))
}

// Retriable says whether the same request may succeed later or elsewhere.
func (c Code) Retriable() bool {
	switch c {
	case CodeUnknownTopicOrPartition, CodeNotLeader, CodeLeaderNotAvailable, CodeRequestTimedOut, CodeCorruptBatch, CodeStorageFull, CodeThrottled,
		CodeStorageError, CodeNotCoordinator, CodeCoordinatorNotAvailable, CodeRebalanceInProgress,
		CodeControllerNotAvailable, CodeShuttingDown, CodePreferredLeaderNotAvailable, CodeEligibleLeadersNotAvailable:
		return true
	}
	return false
}

// Error is the one error type that a broker's methods return to front ends.
type Error struct {
	Code    Code
	Message string
	// Leader is where to go instead (CodeNotLeader, CodeNotCoordinator), if known.
	Leader *Endpoint
	// LeaderEpoch is the leader's, with CodeNotLeader; 0 if it is not known.
	LeaderEpoch int32
	// TP is the partition concerned, if any.
	TP *TopicPartition
	// LogStart and HighWatermark are the bounds with CodeOffsetOutOfRange and CodeExpectedOffsetMismatch.
	LogStart, HighWatermark record.Offset
	// MemberID comes with CodeMemberIDRequired.
	MemberID string
	// Cause is kept for errors.Is; it is not shown to clients.
	Cause error
}

// Errorf makes an Error; a %w argument becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Cause: errors.Unwrap(err)}
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is makes errors.Is(err, &Error{Code: c}) compare codes.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code
}

// CodeOf returns the code of err; CodeInternal if it is no *Error.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}
