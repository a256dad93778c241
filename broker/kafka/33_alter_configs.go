package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// AlterConfigs, versions 0 to 2. v2: flexible. It replaces all settings of a topic: those not named go back to their defaults.

func (s *Server) alterConfigs(ctx context.Context, _ *request, req *kmsg.AlterConfigsRequest) reply {
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	for i := range req.Resources {
		in := &req.Resources[i]
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		err := s.replaceConfigs(ctx, in, req.ValidateOnly)
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

func (s *Server) replaceConfigs(ctx context.Context, in *kmsg.AlterConfigsRequestResource, validateOnly bool) error {
	if in.ResourceType != kmsg.ConfigResourceTypeTopic {
		return errFixed(in.ResourceType)
	}
	d, err := s.broker.DescribeTopic(ctx, in.ResourceName)
	if err != nil {
		return err
	}
	set := map[string]string{}
	for _, c := range in.Configs {
		if c.Value != nil {
			set[c.Name] = *c.Value
		}
	}
	var unset []string
	for _, c := range d.Settings {
		if _, named := set[c.Key]; !named && !c.IsDefault {
			unset = append(unset, c.Key)
		}
	}
	return s.alterTopic(ctx, d.Name, set, unset, validateOnly)
}

// alterTopic sets and unsets. To validate only, it plans a topic with the same settings.
func (s *Server) alterTopic(ctx context.Context, name string, set map[string]string, unset []string, validateOnly bool) error {
	if validateOnly {
		_, err := s.broker.CreateTopic(ctx, api.CreateTopicRequest{Name: validationName, Partitions: 1, ReplicationFactor: 1, Settings: set, ValidateOnly: true})
		return err
	}
	_, err := s.broker.AlterTopic(ctx, name, set, unset)
	return err
}

// validationName is of a topic that is never created.
const validationName = "validation-only.flotilla"
