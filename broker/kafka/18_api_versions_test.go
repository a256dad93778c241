package kafka

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func versionsRequest(version int16) *kmsg.ApiVersionsRequest {
	req := kmsg.NewPtrApiVersionsRequest()
	req.Version, req.ClientSoftwareName, req.ClientSoftwareVersion = version, "test-client", "1.2"
	return req
}

// Every version tells the table, sorted by key and within what kmsg knows; from version 3 on, that there are no features.
func TestApiVersionsTellsTheTable(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	for v := int16(0); v <= 5; v++ {
		resp := ask[*kmsg.ApiVersionsResponse](dial(t, addr), versionsRequest(v))
		if resp.ErrorCode != 0 || len(resp.ApiKeys) != len(apis) {
			t.Fatalf("version %d: error %d, %d APIs", v, resp.ErrorCode, len(resp.ApiKeys))
		}
		for _, k := range resp.ApiKeys {
			e, ok := apis[k.ApiKey]
			if !ok || e.min != k.MinVersion || e.max != k.MaxVersion || e.max > kmsg.RequestForKey(k.ApiKey).MaxVersion() {
				t.Errorf("%s: %d to %d is told, the table has %+v", kmsg.NameForKey(k.ApiKey), k.MinVersion, k.MaxVersion, e)
			}
		}
		if !slices.IsSortedFunc(resp.ApiKeys, func(a, b kmsg.ApiVersionsResponseApiKey) int { return int(a.ApiKey) - int(b.ApiKey) }) {
			t.Error("the table is not sorted")
		}
		want := int64(-1) // not known, before version 3
		if v >= 3 {
			want = featuresEpoch
		}
		if resp.FinalizedFeaturesEpoch != want || len(resp.SupportedFeatures)+len(resp.FinalizedFeatures) != 0 {
			t.Errorf("version %d: features %+v and %+v of epoch %d", v, resp.SupportedFeatures, resp.FinalizedFeatures, resp.FinalizedFeaturesEpoch)
		}
	}
}

// A client that says whom it means is sent back to its bootstrap servers if that is somebody else (KIP-1242).
func TestMisroutedClients(t *testing.T) {
	_, addr := serve(t, newFake(), Options{})
	w := dial(t, addr)
	for _, c := range []struct {
		what    string
		version int16
		cluster *string
		node    int32
		want    int16
	}{
		{"does not know yet", 5, nil, -1, errNone},
		{"means this broker", 5, text("cluster"), 1, errNone},
		{"means another broker", 5, text("cluster"), 2, errRebootstrapRequired},
		{"means another cluster", 5, text("other"), 1, errRebootstrapRequired},
		{"only a cluster", 5, text("cluster"), -1, errInvalidRequest},
		{"only a broker", 5, nil, 1, errInvalidRequest},
		{"before version 5 it cannot say", 4, text("other"), 9, errNone},
	} {
		req := versionsRequest(c.version)
		req.ClusterID, req.NodeID = c.cluster, c.node
		resp := ask[*kmsg.ApiVersionsResponse](w, req)
		if resp.ErrorCode != c.want || (len(resp.ApiKeys) > 0) != (c.want == errNone) {
			t.Errorf("%s: error %d with %d APIs, want %d", c.what, resp.ErrorCode, len(resp.ApiKeys), c.want)
		}
	}
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// What clients say of themselves is in the log, once for each connection.
func TestClientSoftwareIsLogged(t *testing.T) {
	var log lockedBuffer
	_, addr := serve(t, newFake(), Options{Logger: hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug})})
	w := dial(t, addr)
	for range 3 {
		ask[*kmsg.ApiVersionsResponse](w, versionsRequest(3))
	}
	if got := strings.Count(log.String(), "software=test-client version=1.2"); got != 1 {
		t.Errorf("the log has it %d times: %s", got, log.String())
	}
}

func TestValidSoftware(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "a": true, "apache-kafka-java": true, "4.1.0": true, "-a": false, "a.": false, ".": false, "a b": false, "a\n": false, "ü": false,
		strings.Repeat("a", softwareMax): true, strings.Repeat("a", softwareMax+1): false,
	} {
		if validSoftware(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}
