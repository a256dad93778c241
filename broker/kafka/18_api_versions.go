package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions, versions 0 to 4. v3: flexible, client software (KIP-511); v4: features may begin at version 0. There are no features: Kafka's are about
// its own metadata, transactions and group protocol.

func (s *Server) apiVersions(_ context.Context, r *request, req *kmsg.ApiVersionsRequest) reply {
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	resp.ApiKeys = apiKeys()
	if req.Version >= 3 {
		if !validSoftware(req.ClientSoftwareName) || !validSoftware(req.ClientSoftwareVersion) {
			resp.ErrorCode, resp.ApiKeys = errInvalidRequest, nil
			return resp
		}
		r.conn.mu.Lock()
		r.conn.about.Software, r.conn.about.Version = req.ClientSoftwareName, req.ClientSoftwareVersion
		r.conn.mu.Unlock()
		r.conn.log.Debug("client", "id", r.clientID, "software", req.ClientSoftwareName, "version", req.ClientSoftwareVersion)
	}
	return resp
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
