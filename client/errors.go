package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

var (
	// ErrClosed comes from calls on what has been closed, and for records that were still waiting then.
	ErrClosed = errors.New("client: closed")
	// ErrDeliveryTimeout comes for records that could not be stored within the delivery timeout. It wraps the last error of the
	// broker, and ErrOutcomeUnknown if the records may be stored all the same.
	ErrDeliveryTimeout = errors.New("delivery timeout")
	// ErrOutcomeUnknown comes when records were sent but it cannot be told whether they are stored.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrBufferFull comes when a record found no room in the producer's buffer for as long as WithMaxBlock says.
	ErrBufferFull = errors.New("the producer's buffer is full")
	// ErrNotAssigned comes from Seek and Position-like calls for a partition that is not assigned.
	ErrNotAssigned = errors.New("partition is not assigned")
)

// Broker is where a broker is reached.
type Broker struct {
	ID      int32  `json:"id"`
	Address string `json:"address"` // host:port of the gRPC listener
}

// Error is an error that a broker returned, or the failure to reach one. Use errors.As to get at it, or errors.Is with a Code.
type Error struct {
	// Op is what was tried: "CreateTopic", "Produce".
	Op      string
	Code    Code
	Message string
	// Retriable says that the same request may succeed later. The client has then tried for as long as it was allowed to.
	Retriable bool
	// Leader is where to go instead, if the broker knew (CodeNotLeader, CodeNotCoordinator).
	Leader *Broker
	// Topic and Partition are what the error is about; empty and -1 if nothing in particular.
	Topic     string
	Partition int32
	// LogStartOffset and HighWatermark are the partition's bounds with CodeOffsetOutOfRange and CodeExpectedOffsetMismatch.
	LogStartOffset, HighWatermark int64
	cause                         error
}

func (e *Error) Error() string {
	where := e.Topic
	if where != "" && e.Partition >= 0 {
		where = fmt.Sprintf("%s/%d", where, e.Partition)
	}
	message := strings.TrimPrefix(e.Message, where+": ") // brokers begin with it, too
	at := strings.TrimSpace(e.Op + " " + where)
	if at != "" {
		at += ": "
	}
	return fmt.Sprintf("%s%s (%s)", at, message, e.Code)
}

// Is compares with a Code.
func (e *Error) Is(target error) bool {
	c, ok := target.(Code)
	return ok && e.Code == c
}

// Unwrap returns the gRPC status error, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// CodeOf returns the code of an error of this package: that of the *Error in it, CodeInternal if there is none.
func CodeOf(err error) Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// IsRetriable tells whether the same call may succeed later.
func IsRetriable(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Retriable
}

// toError turns what a gRPC call returned into an *Error; ctx errors stay what they are, so that errors.Is(err, context.Canceled) holds.
func toError(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	var known *Error
	if errors.As(err, &known) || errors.Is(err, ErrOutcomeUnknown) {
		return err // ours already
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	st := status.Convert(err)
	for _, d := range st.Details() {
		if detail, ok := d.(*pb.ErrorDetail); ok {
			return fromDetail(op, detail, st.Message(), err)
		}
	}
	return fromStatus(op, st, err)
}

// fromStatus is for errors of gRPC itself, which carry no detail.
func fromStatus(op string, st *status.Status, cause error) *Error {
	e := &Error{Op: op, Code: CodeInternal, Message: st.Message(), Partition: -1, cause: cause}
	switch st.Code() {
	case codes.Unavailable, codes.Canceled:
		e.Code, e.Retriable = CodeUnavailable, true
	case codes.DeadlineExceeded:
		e.Code, e.Retriable = CodeRequestTimedOut, true
	case codes.ResourceExhausted:
		e.Code = CodeMessageTooLarge
	case codes.InvalidArgument, codes.Unimplemented:
		e.Code = CodeInvalidRequest
	}
	return e
}

func fromDetail(op string, d *pb.ErrorDetail, message string, cause error) *Error {
	e := &Error{
		Op: op, Code: Code(d.Code), Message: message, Retriable: d.Retriable, Topic: d.Topic, Partition: d.Partition,
		LogStartOffset: d.LogStartOffset, HighWatermark: d.HighWatermark, cause: cause,
	}
	if d.Leader != nil && d.Leader.Address != "" {
		e.Leader = &Broker{ID: d.Leader.BrokerId, Address: d.Leader.Address}
	}
	if e.Topic == "" {
		e.Partition = -1
	}
	return e
}

// streamError is toError for what a stream's Recv or Send returned: a stream that the broker ended counts as a broken connection.
func streamError(ctx context.Context, op string, err error) error {
	if errors.Is(err, io.EOF) {
		return &Error{Op: op, Code: CodeUnavailable, Message: "the broker ended the stream", Retriable: true, Partition: -1, cause: err}
	}
	return toError(ctx, op, err)
}
