package main

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/flotilla-log/flotilla/client"
)

// Exit codes, the same for every command. They are part of the interface: scripts test for them.
const (
	exitOK          = 0
	exitFailure     = 1 // anything that has no code of its own
	exitUsage       = 2 // a flag, argument, variable or configuration key is wrong; nothing was done
	exitNotFound    = 3 // the topic, partition, group or broker named does not exist
	exitUnavailable = 4 // no broker could be reached, or none could answer in time; trying again may help
	exitRefused     = 5 // the cluster's state forbids it: it exists already, the group has members, fenced, wrong offset
	exitBadData     = 6 // damage was found in a log, or input lines were rejected
	exitUnhealthy   = 7 // the question was answered, and the answer is: not healthy
	exitInterrupted = 130
)

const exitCodesHelp = `Exit codes:
  0    done
  1    failed
  2    wrong usage: a flag, argument, variable or configuration key; nothing was done
  3    not found: topic, partition, group, broker
  4    unavailable: no broker reached, or no answer in time; trying again may help
  5    refused in the present state: exists already, group has members, ...
  6    bad data: damage in a log, or rejected input lines
  7    not healthy (health, cluster status --check)
  130  interrupted`

// codedError is an error that knows the exit code it asks for.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// withCode gives err an exit code of its own.
func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code: code, err: err}
}

func usageErrorf(format string, args ...any) error {
	return withCode(exitUsage, fmt.Errorf(format, args...))
}

// exitCode chooses the exit code for what a command returned.
func exitCode(err error) int {
	var coded *codedError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &coded):
		return coded.code
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return exitUnavailable
	}
	return exitForStatus(err)
}

// exitByCode has the codes whose exit code does not follow from their gRPC status.
var exitByCode = map[client.Code]int{
	client.CodeUnavailable:              exitUnavailable,
	client.CodeUnknownMember:            exitRefused,
	client.CodeNotLeader:                exitUnavailable,
	client.CodeNotCoordinator:           exitUnavailable,
	client.CodeRebalanceInProgress:      exitUnavailable,
	client.CodeInvalidReplicationFactor: exitRefused,
	client.CodeUnsupportedCompression:   exitUsage,
	client.CodeMessageTooLarge:          exitRefused,
	client.CodeInvalidRecord:            exitRefused,
}

// exitForStatus chooses by the code of the client's error, else by its gRPC status; every error of the API has one (see ErrorCode in
// common.proto).
func exitForStatus(err error) int {
	var fromBroker *client.Error
	if errors.As(err, &fromBroker) {
		if exit, ok := exitByCode[fromBroker.Code]; ok {
			return exit
		}
	}
	if errors.Is(err, client.ErrDeliveryTimeout) || errors.Is(err, client.ErrBufferFull) {
		return exitUnavailable
	}
	var withStatus interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &withStatus) {
		return exitFailure
	}
	return exitByStatus[withStatus.GRPCStatus().Code()]
}

var exitByStatus = map[codes.Code]int{
	codes.OK:                 exitFailure, // it is an error all the same
	codes.Canceled:           exitInterrupted,
	codes.Unknown:            exitFailure,
	codes.InvalidArgument:    exitUsage,
	codes.DeadlineExceeded:   exitUnavailable,
	codes.NotFound:           exitNotFound,
	codes.AlreadyExists:      exitRefused,
	codes.PermissionDenied:   exitRefused,
	codes.ResourceExhausted:  exitUnavailable,
	codes.FailedPrecondition: exitRefused,
	codes.Aborted:            exitRefused,
	codes.OutOfRange:         exitRefused,
	codes.Unimplemented:      exitFailure,
	codes.Internal:           exitFailure,
	codes.Unavailable:        exitUnavailable,
	codes.DataLoss:           exitBadData,
	codes.Unauthenticated:    exitRefused,
}
