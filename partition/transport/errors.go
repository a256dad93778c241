package transport

import (
	"errors"
	"fmt"
)

var (
	// ErrClosed comes from every use of a transport after Close.
	ErrClosed = errors.New("transport is closed")
	// ErrGroupClosed comes from every use of a group after its Close, and from a peer whose group closed
	// while it held the request.
	ErrGroupClosed = errors.New("raft group is closed")
	// ErrUnreachable: no connection could be made; nothing was sent. Retry after a moment.
	ErrUnreachable = errors.New("peer is unreachable")
	// ErrRefused: the peer answered the handshake with a refusal (wrong cluster, wrong broker, incompatible
	// version); nothing was sent. It wraps ErrUnreachable; retrying helps only after a change of configuration.
	ErrRefused = fmt.Errorf("%w: it refused the connection", ErrUnreachable)
	// ErrConnLost: the connection was lost while the request was under way; it may have been executed.
	ErrConnLost = errors.New("connection to peer was lost")
	// ErrTimeout: no answer in time; the request may have been executed.
	ErrTimeout = errors.New("peer did not answer in time")
	// ErrUnknownGroup: the peer has not opened this Raft group, or no longer.
	ErrUnknownGroup = errors.New("peer has no such raft group")
	// ErrWrongServer: the request was meant for another server ID: a replica that this broker had before it lost
	// its disk or its data. The present one must not answer in its name; the configuration is out of date.
	ErrWrongServer = errors.New("the broker's replica is another server than the one addressed")
	// ErrOvertaken: the peer is in a later term than the leader that asked.
	ErrOvertaken = errors.New("the peer is in a later term")
	// ErrBusy: a bounded queue on the peer is full; the request was not executed. Retry after a moment.
	ErrBusy = errors.New("peer is busy")
	// ErrTooLarge: the message does not fit into a frame.
	ErrTooLarge = errors.New("message exceeds the frame limit")
	// ErrNoHandler: the peer has no handler for the method: an older release, or not started yet.
	ErrNoHandler = errors.New("peer does not know the method")
)

// RemoteError is the error that a call's handler returned, on the peer or here. A handler chooses the code by
// returning a *RemoteError, wrapped or not; any other error has code 0.
type RemoteError struct {
	Code uint16
	Text string
}

// Error returns the text alone.
func (e *RemoteError) Error() string { return e.Text }

// asRemote gives a handler's error the form in which a caller sees it, near or far.
func asRemote(err error) *RemoteError {
	var re *RemoteError
	if errors.As(err, &re) {
		return &RemoteError{Code: re.Code, Text: cutText(err.Error())}
	}
	return &RemoteError{Text: cutText(err.Error())}
}

func cutText(s string) string { return s[:min(len(s), maxErrorText)] }

// The codes of error frames. The numbers are the protocol's.
const (
	codeOK           uint16 = 0
	codeRaft         uint16 = 1 // raft answered with an error; text is raft's
	codeUnknownGroup uint16 = 2
	codeBusy         uint16 = 3
	codeGroupClosed  uint16 = 4
	codeNoHandler    uint16 = 5
	codeHandler      uint16 = 6 // application code and text are the handler's
	codeTooLarge     uint16 = 7
	codeWrongServer  uint16 = 8
)

var codeErrors = map[uint16]error{
	codeUnknownGroup: ErrUnknownGroup, codeBusy: ErrBusy, codeGroupClosed: ErrGroupClosed,
	codeNoHandler: ErrNoHandler, codeTooLarge: ErrTooLarge, codeWrongServer: ErrWrongServer,
}

// remoteFailure turns an error frame into an error.
func remoteFailure(code, app uint16, text string) error {
	if code == codeHandler {
		return &RemoteError{Code: app, Text: text}
	}
	if base := codeErrors[code]; base != nil {
		return base
	}
	return errors.New(text)
}

func errorFrame(h header, code, app uint16, text string) *frame {
	h.kind, h.code = kindError, code
	text = cutText(text)
	e, p := newEncoder(2 + len(text))
	e.u16(app)
	e.b = append(e.b, text...)
	return seal(h, e, p)
}

func decodeError(h header, payload []byte) error {
	d := &decoder{b: payload}
	app := d.u16()
	if d.err != nil {
		return d.err
	}
	return remoteFailure(h.code, app, string(d.b))
}
