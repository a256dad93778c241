package kafka

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	keyProduce   int16 = 0
	keyFetch     int16 = 1
	keyJoinGroup int16 = 11
	keySyncGroup int16 = 14
	keyAPIs      int16 = 18
)

// reply is an answer that can be put into bytes. Every kmsg.Response is one.
type reply interface {
	IsFlexible() bool
	AppendTo([]byte) []byte
}

// request is one request of a connection.
type request struct {
	header
	conn *conn
	msg  kmsg.Request
	size int // bytes received
	came time.Time
}

// entry is one API.
type entry struct {
	key, min, max int16
	// waits: the request may wait for something to happen. Its context ends with the connection.
	waits  bool
	handle func(*Server, context.Context, *request) reply
}

// on makes the entry of an API from its lowest and highest version and what answers it. A nil reply closes the connection.
func on[Req kmsg.Request](min, max int16, handle func(*Server, context.Context, *request, Req) reply) entry {
	var zero Req
	return entry{key: zero.Key(), min: min, max: max, handle: func(s *Server, ctx context.Context, r *request) reply {
		return handle(s, ctx, r, r.msg.(Req))
	}}
}

// waiting marks an entry as one that may wait.
func waiting(e entry) entry {
	e.waits = true
	return e
}

// apis is the table of what is served, by key. ApiVersions tells it to clients. The highest versions are within what kmsg knows.
var apis map[int16]entry

// The table refers to the handlers, and one of these (ApiVersions) to the table.
func init() {
	apis = table(
		// Versions 0 to 2 carry the old message formats; they are listed for the sake of clients that take their absence for an
		// ancient broker, and answered with UNSUPPORTED_VERSION per partition.
		entry{key: keyProduce, min: 0, max: 13},
		waiting(on(4, 18, (*Server).fetch)),
		on(1, 11, (*Server).listOffsets),
		on(0, 13, (*Server).metadata),
		on(1, 10, (*Server).offsetCommit),
		on(1, 10, (*Server).offsetFetch),
		on(0, 6, (*Server).findCoordinator),
		waiting(on(0, 9, (*Server).joinGroup)),
		on(0, 4, (*Server).heartbeat),
		on(0, 5, (*Server).leaveGroup),
		waiting(on(0, 5, (*Server).syncGroup)),
		on(0, 6, (*Server).describeGroups),
		on(0, 5, (*Server).listGroups),
		on(0, 5, (*Server).apiVersions),
		on(0, 7, (*Server).createTopics),
		on(0, 6, (*Server).deleteTopics),
		on(0, 2, (*Server).deleteRecords),
		on(0, 5, (*Server).initProducerID),
		on(0, 4, (*Server).offsetForLeaderEpoch),
		on(0, 4, (*Server).describeConfigs),
		on(0, 2, (*Server).alterConfigs),
		on(0, 5, (*Server).describeLogDirs),
		on(0, 3, (*Server).createPartitions),
		on(0, 3, (*Server).deleteGroups),
		on(0, 2, (*Server).electLeaders),
		on(0, 1, (*Server).incrementalAlterConfigs),
		on(0, 1, (*Server).alterPartitionAssignments),
		on(0, 0, (*Server).listPartitionReassignments),
		on(0, 0, (*Server).offsetDelete),
		on(0, 2, (*Server).describeCluster),
		on(0, 0, (*Server).describeProducers),
		on(0, 0, (*Server).describeTopicPartitions),
	)
}

func table(entries ...entry) map[int16]entry {
	m := make(map[int16]entry, len(entries))
	for _, e := range entries {
		m[e.key] = e
	}
	return m
}

// apiKeys lists the table for ApiVersions.
func apiKeys() []kmsg.ApiVersionsResponseApiKey {
	var out []kmsg.ApiVersionsResponseApiKey
	for _, key := range slices.Sorted(maps.Keys(apis)) {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = key, apis[key].min, apis[key].max
		out = append(out, k)
	}
	return out
}
