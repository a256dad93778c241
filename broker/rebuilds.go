package broker

import (
	"sync"

	"github.com/flotilla-log/flotilla/broker/metadata"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// rebuilds remembers which replicas of this broker were set aside as damaged, until another one votes in their place: for the metrics. After a restart
// it knows of none.
type rebuilds struct {
	mu      sync.Mutex
	waiting map[transport.GroupID]string // the damaged replica's server ID
}

func (r *rebuilds) begin(g transport.GroupID, serverID string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = map[transport.GroupID]string{}
	}
	r.waiting[g] = serverID
}

// ended counts those whose partition is whole again, with a replica here or, if the controller chose so, elsewhere. Deleted partitions are forgotten.
func (r *rebuilds) ended(groups map[transport.GroupID]*metadata.Partition) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for g, id := range r.waiting {
		p := groups[g]
		if p != nil && (p.Moving() || !p.Surplus(id)) {
			continue
		}
		delete(r.waiting, g)
		if p != nil {
			n++
		}
	}
	return n
}
