package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/flotilla-log/flotilla/broker/api"
)

// maxRequests is how many of the newest commands the state machine recognises when they are proposed again.
const maxRequests = 1024

// outcome is what applying a command gave. It travels between brokers and in snapshots.
type outcome struct {
	Result  Result   `json:"result"`
	Failed  bool     `json:"failed,omitempty"`
	Code    api.Code `json:"code,omitempty"`
	Message string   `json:"message,omitempty"`
}

// err is the error of a failed command.
func (o outcome) err() error {
	if !o.Failed {
		return nil
	}
	return &api.Error{Code: o.Code, Message: o.Message}
}

func failure(err error) outcome {
	o := outcome{Failed: true, Code: api.CodeInternal, Message: err.Error()}
	var e *api.Error
	if errors.As(err, &e) {
		o.Code = e.Code
	}
	return o
}

// applied is a request with its outcome, for the table of those already applied.
type applied struct {
	Request string  `json:"request"`
	Outcome outcome `json:"outcome"`
}

// fsm is the raft.FSM. Raft calls Apply, Snapshot and Restore from one goroutine, which owns requests and ring; the rest is for all.
type fsm struct {
	state   atomic.Pointer[State]
	index   atomic.Uint64 // of the last command applied
	changed signal        // state was replaced
	applied signal        // index has grown

	requests map[string]outcome
	ring     []string // the keys of requests, oldest first

	// halted is why nothing more is applied: a command that a newer release wrote. Whoever skipped it would have another state than the others, and its
	// snapshot would make that last. onHalt is told, once.
	halted error
	onHalt func(error)
	// onApply, if it is set, is told after each command. It must not block.
	onApply func()
}

func newFSM() *fsm {
	f := &fsm{requests: map[string]outcome{}}
	f.state.Store(NewState())
	return f
}

// Apply implements raft.FSM. It returns an outcome.
func (f *fsm) Apply(log *raft.Log) any {
	if f.halted != nil {
		return failure(f.halted)
	}
	request, cmd, err := decodeCommand(log.Data)
	if errors.Is(err, ErrNewerFormat) {
		f.halted = fmt.Errorf("entry %d of the metadata log: %w", log.Index, err)
		if f.onHalt != nil {
			f.onHalt(f.halted)
		}
		return failure(f.halted)
	}
	defer func() {
		f.index.Store(log.Index)
		f.applied.raise()
		if f.onApply != nil {
			f.onApply()
		}
	}()
	if request != "" {
		if o, done := f.requests[request]; done {
			return o
		}
	}
	var o outcome
	if err != nil {
		o = failure(err)
	} else {
		o = f.run(cmd, log.Index)
	}
	o.Result.Index = log.Index
	f.remember(request, o)
	return o
}

func (f *fsm) run(cmd Command, index uint64) outcome {
	old := f.state.Load()
	ch := newChange(old)
	res, err := cmd.apply(ch)
	if err != nil {
		return failure(err)
	}
	if next := ch.done(index); next != old {
		f.state.Store(next)
		f.changed.raise()
	}
	return outcome{Result: res}
}

func (f *fsm) remember(request string, o outcome) {
	if request == "" {
		return
	}
	if len(f.ring) == maxRequests {
		delete(f.requests, f.ring[0])
		f.ring = f.ring[1:]
	}
	f.requests[request] = o
	f.ring = append(f.ring, request)
}

// snapshotVersion is the format version of snapshots.
const snapshotVersion = 1

// snapshot is the whole state machine, as JSON.
type snapshot struct {
	FormatVersion int       `json:"format_version"`
	Index         uint64    `json:"index"`
	State         *State    `json:"state"`
	Requests      []applied `json:"requests"` // oldest first
}

// Snapshot implements raft.FSM. It only takes pointers; Persist does the work while commands go on.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	if f.halted != nil {
		return nil, f.halted
	}
	s := &snapshot{FormatVersion: snapshotVersion, Index: f.index.Load(), State: f.state.Load()}
	for _, r := range f.ring {
		s.Requests = append(s.Requests, applied{r, f.requests[r]})
	}
	return s, nil
}

// Persist implements raft.FSMSnapshot.
func (s *snapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s); err != nil {
		return errors.Join(fmt.Errorf("metadata: write snapshot: %w", err), sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (s *snapshot) Release() {}

// Restore implements raft.FSM.
func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	var s snapshot
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return fmt.Errorf("%w: snapshot: %w", ErrMalformed, err)
	}
	if s.FormatVersion > snapshotVersion {
		return fmt.Errorf("%w: snapshot version %d, this release knows %d", ErrNewerFormat, s.FormatVersion, snapshotVersion)
	}
	if err := s.check(); err != nil {
		return err
	}
	f.requests, f.ring = map[string]outcome{}, nil
	for _, a := range s.Requests {
		f.remember(a.Request, a.Outcome)
	}
	f.state.Store(s.State)
	f.index.Store(s.Index)
	f.changed.raise()
	f.applied.raise()
	return nil
}

// check makes sure of what the rest of the package takes for granted.
func (s *snapshot) check() error {
	if s.State == nil || s.FormatVersion < 1 {
		return fmt.Errorf("%w: snapshot without state or version", ErrMalformed)
	}
	s.State.Brokers, s.State.Topics = cloneMap(s.State.Brokers), cloneMap(s.State.Topics)
	for id, b := range s.State.Brokers {
		if b == nil || b.ID != id {
			return fmt.Errorf("%w: snapshot: broker %d", ErrMalformed, id)
		}
	}
	for name, t := range s.State.Topics {
		if t == nil || t.Name != name {
			return fmt.Errorf("%w: snapshot: topic %q", ErrMalformed, name)
		}
		for i, p := range t.Partitions {
			if p == nil || p.Topic != name || int(p.Partition) != i || len(p.Replicas) == 0 || repeated(p.Replicas) {
				return fmt.Errorf("%w: snapshot: partition %d of topic %q", ErrMalformed, i, name)
			}
		}
	}
	return nil
}

// repeated says that a broker has two of the replicas.
func repeated(list []Replica) bool {
	for i, r := range list {
		if hasBroker(list[:i], r.Broker) {
			return true
		}
	}
	return false
}

// signal wakes all who wait for something to change. The zero value is ready.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that the next raise closes.
func (s *signal) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) raise() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
