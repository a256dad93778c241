package group

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/raftlog"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog stands for a coordinator partition: it applies commands in order on all its brokers' machines, if the proposer leads. It is
// meant for synctest bubbles.
type fakeLog struct {
	t     *testing.T
	delay time.Duration // of each proposal

	mu       sync.Mutex
	brokers  []*fakeBroker
	leader   int
	raftTerm uint64
	index    raftlog.Index
	commands int
	// fail, if not nil, says what happens to a proposal: an error, before or after it was applied.
	fail func() (err error, applied bool)
	// hold, if not nil, keeps proposals back until it is closed.
	hold chan struct{}
	// sent, if not nil, is told of each command.
	sent func(cmd []byte)

	// newest is the time of the newest command, which never goes back.
	newest time.Time

	topics sync.Map // name -> int32
}

type fakeBroker struct {
	*Coordinator
	log     *fakeLog
	self    int
	machine *Machine
}

var errNotLeader = &api.Error{Code: api.CodeNotLeader, Message: "not the leader"}

func newFakeLog(t *testing.T, brokers int, s Settings) *fakeLog {
	t.Helper()
	l := &fakeLog{t: t, delay: time.Millisecond}
	var ids atomic.Int64
	for i := range brokers {
		b := &fakeBroker{log: l, self: i, machine: NewMachine(nil)}
		c, err := NewCoordinator(Config{
			Name: "__consumer_offsets/0", Self: api.Endpoint{ID: api.BrokerID(i)}, Machine: b.machine, Propose: b.propose, Settings: s, Term: b.term,
			Partitions: l.partitions, NewID: func() string { return fmt.Sprint(ids.Add(1)) },
		})
		if err != nil {
			t.Fatal(err)
		}
		b.Coordinator = c
		l.brokers = append(l.brokers, b)
	}
	return l
}

// start makes a broker the leader; the one before it does not know yet.
func (l *fakeLog) start(i int) *fakeBroker {
	l.t.Helper()
	l.mu.Lock()
	l.leader = i
	l.raftTerm++
	l.mu.Unlock()
	if err := l.brokers[i].LeaderStart(context.Background()); err != nil {
		l.t.Fatal(err)
	}
	return l.brokers[i]
}

func (l *fakeLog) stop() {
	for _, b := range l.brokers {
		b.LeaderStop()
	}
}

func (l *fakeLog) partitions(topic string) (int32, bool) {
	n, ok := l.topics.Load(topic)
	if !ok {
		return 0, false
	}
	return n.(int32), true
}

func (b *fakeBroker) term() uint64 {
	b.log.mu.Lock()
	defer b.log.mu.Unlock()
	if b.log.leader != b.self {
		return 0
	}
	return b.log.raftTerm
}

func (b *fakeBroker) propose(ctx context.Context, cmd []byte) (any, error) {
	l := b.log
	l.mu.Lock()
	hold, fail := l.hold, l.fail
	l.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	time.Sleep(l.delay) // virtual
	err, applied := error(nil), true
	if fail != nil {
		err, applied = fail()
	}
	if !applied {
		return nil, err
	}
	res, applyErr := l.apply(b.self, cmd)
	return res, errors.Join(err, applyErr)
}

func (l *fakeLog) apply(from int, cmd []byte) (any, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leader != from {
		return nil, errNotLeader
	}
	l.index++
	l.commands++
	if l.sent != nil {
		l.sent(cmd)
	}
	var res any
	if at := l.brokers[from].now(); at.After(l.newest) {
		l.newest = at
	}
	for i, b := range l.brokers {
		r := b.machine.Apply(cmd, l.newest, l.index)
		if i == from {
			res = r
		}
	}
	return res, nil
}

func (l *fakeLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.commands
}

func (l *fakeLog) set(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}
