package fakebroker

import (
	"time"

	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// Action is what a fault does to a produce request.
type Action int8

// The actions.
const (
	Pass            Action = iota
	Refuse                 // answer with Code and store nothing
	StoreThenFail          // store, but answer with Code
	StoreThenCut           // store, and break the stream without an answer
	Cut                    // break the stream and store nothing
	StoreThenIgnore        // store and never answer
	Ignore                 // store nothing and never answer
)

// Verdict is what a Fault decides.
type Verdict struct {
	Action Action
	Code   pb.ErrorCode
	Delay  time.Duration // before the request is looked at
}

// Fault looks at each produce request before it is handled. It runs with the cluster's lock held.
type Fault func(broker int32, req *pb.ProduceRequest) Verdict

// AddFault adds a fault; the first that does not pass decides.
func (c *Cluster) AddFault(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = append(c.faults, f)
}

// ClearFaults ends all faults.
func (c *Cluster) ClearFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.faults = nil
}

// Nth is a fault that hits the nth (from 1) request that it sees.
func Nth(n int, v Verdict) Fault {
	return func(int32, *pb.ProduceRequest) Verdict {
		n--
		if n == 0 {
			return v
		}
		return Verdict{}
	}
}

// NameTheOther is a fault of a cluster of two: whoever is asked says that the other one leads, in the same epoch.
func (c *Cluster) NameTheOther() Fault {
	return func(broker int32, req *pb.ProduceRequest) Verdict {
		c.topics[req.Topic].partitions[req.Partition].leader = 1 - broker
		return Verdict{}
	}
}

func (c *Cluster) judge(broker int32, req *pb.ProduceRequest) Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.faults {
		if v := f(broker, req); v.Action != Pass || v.Delay > 0 {
			return v
		}
	}
	return Verdict{}
}
