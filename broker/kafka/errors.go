package kafka

import (
	"context"
	"errors"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Kafka's error codes, as far as they are used here.
const (
	errNone                        int16 = 0
	errUnknownServer               int16 = -1
	errOffsetOutOfRange            int16 = 1
	errCorruptMessage              int16 = 2
	errUnknownTopicOrPartition     int16 = 3
	errLeaderNotAvailable          int16 = 5
	errNotLeader                   int16 = 6
	errRequestTimedOut             int16 = 7
	errMessageTooLarge             int16 = 10
	errOffsetMetadataTooLarge      int16 = 12
	errCoordinatorLoading          int16 = 14
	errCoordinatorNotAvailable     int16 = 15
	errNotCoordinator              int16 = 16
	errInvalidTopic                int16 = 17
	errInvalidRequiredAcks         int16 = 21
	errIllegalGeneration           int16 = 22
	errInconsistentProtocol        int16 = 23
	errInvalidGroupID              int16 = 24
	errUnknownMember               int16 = 25
	errInvalidSessionTimeout       int16 = 26
	errRebalanceInProgress         int16 = 27
	errInvalidTimestamp            int16 = 32
	errUnsupportedVersion          int16 = 35
	errTopicAlreadyExists          int16 = 36
	errInvalidPartitions           int16 = 37
	errInvalidReplicationFactor    int16 = 38
	errInvalidReplicaAssignment    int16 = 39
	errInvalidConfig               int16 = 40
	errNotController               int16 = 41
	errInvalidRequest              int16 = 42
	errPolicyViolation             int16 = 44
	errOutOfOrderSequence          int16 = 45
	errDuplicateSequence           int16 = 46
	errInvalidProducerEpoch        int16 = 47
	errKafkaStorage                int16 = 56
	errReassignmentInProgress      int16 = 60
	errNonEmptyGroup               int16 = 68
	errGroupIDNotFound             int16 = 69
	errFetchSessionIDNotFound      int16 = 70
	errInvalidFetchSessionEpoch    int16 = 71
	errListenerNotFound            int16 = 72
	errFencedLeaderEpoch           int16 = 74
	errUnknownLeaderEpoch          int16 = 75
	errUnsupportedCompression      int16 = 76
	errMemberIDRequired            int16 = 79
	errPreferredLeaderNotAvailable int16 = 80
	errGroupMaxSize                int16 = 81
	errFencedInstance              int16 = 82
	errEligibleLeadersNotAvailable int16 = 83
	errElectionNotNeeded           int16 = 84
	errNoReassignmentInProgress    int16 = 85
	errGroupSubscribedToTopic      int16 = 86
	errInvalidRecord               int16 = 87
	errThrottlingQuota             int16 = 89
	errUnknownTopicID              int16 = 100
	errBrokerNotRegistered         int16 = 102
	errInconsistentTopicID         int16 = 103
	errFetchSessionTopicID         int16 = 106
	errUnsupportedEndpointType     int16 = 115
	errRebootstrapRequired         int16 = 129
)

// family is the kind of API that an error is answered to. Clients are particular: what is a reason to look for the leader again in one
// is an unexpected error, and the end of the client, in another.
type family int

const (
	data  family = iota // Produce, Fetch, ListOffsets and their like
	group               // the group protocol
	admin
	families
)

func same(code int16) [families]int16 { return [families]int16{code, code, code} }

// codes is the one table from errors to Kafka's codes.
var codes = map[api.Code][families]int16{
	//                                  data                        group                       admin
	api.CodeInternal:                 same(errUnknownServer),
	api.CodeInvalidRequest:           same(errInvalidRequest),
	api.CodeUnknownTopicOrPartition:  same(errUnknownTopicOrPartition),
	api.CodeNotLeader:                same(errNotLeader),
	api.CodeLeaderNotAvailable:       {errNotLeader, errCoordinatorNotAvailable, errLeaderNotAvailable},
	api.CodeRequestTimedOut:          {errRequestTimedOut, errCoordinatorNotAvailable, errRequestTimedOut},
	api.CodeCorruptBatch:             same(errCorruptMessage),
	api.CodeMessageTooLarge:          same(errMessageTooLarge),
	api.CodeInvalidRecord:            same(errInvalidRecord),
	api.CodeOffsetOutOfRange:         same(errOffsetOutOfRange),
	api.CodeOutOfOrderSequence:       same(errOutOfOrderSequence),
	api.CodeDuplicateSequence:        same(errDuplicateSequence),
	api.CodeProducerFenced:           same(errInvalidProducerEpoch),
	api.CodeExpectedOffsetMismatch:   same(errInvalidRequest), // Kafka's requests have no such condition
	api.CodeStorageFull:              {errKafkaStorage, errCoordinatorNotAvailable, errKafkaStorage},
	api.CodeThrottled:                {errRequestTimedOut, errCoordinatorLoading, errThrottlingQuota},
	api.CodeStorageError:             {errKafkaStorage, errCoordinatorNotAvailable, errKafkaStorage},
	api.CodeNotCoordinator:           same(errNotCoordinator),
	api.CodeCoordinatorNotAvailable:  same(errCoordinatorNotAvailable),
	api.CodeIllegalGeneration:        same(errIllegalGeneration),
	api.CodeUnknownMember:            same(errUnknownMember),
	api.CodeRebalanceInProgress:      same(errRebalanceInProgress),
	api.CodeInconsistentProtocol:     same(errInconsistentProtocol),
	api.CodeFencedInstance:           same(errFencedInstance),
	api.CodeInvalidSessionTimeout:    same(errInvalidSessionTimeout),
	api.CodeGroupNotEmpty:            same(errNonEmptyGroup),
	api.CodeUnknownGroup:             same(errGroupIDNotFound),
	api.CodeGroupFull:                same(errGroupMaxSize),
	api.CodeOffsetMetadataTooLarge:   same(errOffsetMetadataTooLarge),
	api.CodeTopicAlreadyExists:       same(errTopicAlreadyExists),
	api.CodeInvalidTopic:             same(errInvalidTopic),
	api.CodeInvalidPartitions:        same(errInvalidPartitions),
	api.CodeInvalidReplicationFactor: same(errInvalidReplicationFactor),
	api.CodeInvalidConfig:            same(errInvalidConfig),
	api.CodeControllerNotAvailable:   {errRequestTimedOut, errCoordinatorNotAvailable, errNotController},
	api.CodeUnknownBroker:            same(errBrokerNotRegistered),
	api.CodePolicyViolation:          same(errPolicyViolation),
	api.CodeShuttingDown:             {errNotLeader, errCoordinatorNotAvailable, errNotController},
	api.CodeUnsupportedCompression:   same(errUnsupportedCompression),
	api.CodeFencedLeaderEpoch:        same(errFencedLeaderEpoch),
	api.CodeInvalidTimestamp:         same(errInvalidTimestamp),
	api.CodeMemberIDRequired:         same(errMemberIDRequired),

	api.CodeElectionNotNeeded:           same(errElectionNotNeeded),
	api.CodePreferredLeaderNotAvailable: same(errPreferredLeaderNotAvailable),
	api.CodeEligibleLeadersNotAvailable: same(errEligibleLeadersNotAvailable),
	api.CodeInvalidReplicaAssignment:    same(errInvalidReplicaAssignment),
	api.CodeNoReassignmentInProgress:    same(errNoReassignmentInProgress),
	api.CodeReassignmentInProgress:      same(errReassignmentInProgress),
	api.CodeGroupSubscribedToTopic:      same(errGroupSubscribedToTopic),
}

// codeOf is the code for err in an answer of the family.
func codeOf(err error, f family) int16 {
	if err == nil {
		return errNone
	}
	var e *api.Error
	code := api.CodeInternal
	switch {
	case errors.As(err, &e):
		code = e.Code
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		code = api.CodeRequestTimedOut
	}
	row, ok := codes[code]
	if !ok {
		return errUnknownServer
	}
	return row[f]
}

// messageOf is the text for err, nil for none.
func messageOf(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}

func text(s string) *string { return &s }

// orNil is nil for the empty string, which stands for null where Kafka has null.
func orNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
