package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions, versions 0 to 5. v3: flexible, client software (KIP-511); v4: features may begin at version 0; v5: which broker of which cluster
// the client means to have reached (KIP-1242).
//
// There are no features, and the response says that this is known (their epoch is 0): those of Kafka are about its own metadata log, transactions,
// share groups and the group protocol of KIP-848, and clients take what is not listed for not there.

// featuresEpoch is that of the finalized features, which do not change.
const featuresEpoch = 0

func (s *Server) apiVersions(_ context.Context, r *request, req *kmsg.ApiVersionsRequest) reply {
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if req.Version >= 3 {
		if !validSoftware(req.ClientSoftwareName) || !validSoftware(req.ClientSoftwareVersion) {
			resp.ErrorCode = errInvalidRequest
			return resp
		}
		r.conn.introduce(req.ClientSoftwareName, req.ClientSoftwareVersion)
		resp.FinalizedFeaturesEpoch = featuresEpoch
	}
	if resp.ErrorCode = s.misrouted(req); resp.ErrorCode != errNone {
		r.conn.log.Debug("a client means another broker", "broker", req.NodeID, "cluster", orEmpty(req.ClusterID), "error", resp.ErrorCode)
		return resp
	}
	resp.ApiKeys = apiKeys()
	return resp
}

// misrouted tells a client that means another broker or cluster to begin anew from its bootstrap servers.
func (s *Server) misrouted(req *kmsg.ApiVersionsRequest) int16 {
	const noNode = -1
	switch {
	case req.Version < 5 || req.ClusterID == nil && req.NodeID == noNode:
		return errNone
	case req.ClusterID == nil || req.NodeID == noNode:
		return errInvalidRequest // both, or neither
	case *req.ClusterID != s.broker.Metadata([]string{}).ClusterID || req.NodeID != int32(s.opts.Self):
		return errRebootstrapRequired
	}
	return errNone
}

// introduce notes what the client says of itself, for ListClients and once in the log.
func (c *conn) introduce(software, version string) {
	c.mu.Lock()
	known := c.about.Software == software && c.about.Version == version
	c.about.Software, c.about.Version = software, version
	id := c.about.ID
	c.mu.Unlock()
	if !known {
		c.log.Debug("a Kafka client has connected", "listener", c.listener, "client_id", id, "software", software, "version", version)
	}
}

// softwareMax is the longest name or version of client software.
const softwareMax = 256

// validSoftware is Kafka's rule: letters, digits, '-' and '.', neither first nor last one of the latter two.
func validSoftware(s string) bool {
	if s == "" || len(s) > softwareMax {
		return false
	}
	for i := range len(s) {
		ch := s[i]
		letter := ch >= 'a' && ch <= 'z' || ch >= 'A' && ch <= 'Z' || ch >= '0' && ch <= '9'
		if !letter && (ch != '-' && ch != '.' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return true
}

// unknownAPIVersions answers a newer request than is known: in the oldest form, with the whole table, so that the client can ask again.
func unknownAPIVersions() reply {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version, resp.ErrorCode, resp.ApiKeys = 0, errUnsupportedVersion, apiKeys()
	return resp
}
