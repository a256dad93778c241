package kafka

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// IncrementalAlterConfigs, versions 0 to 1. v1: flexible (KIP-339).

func (s *Server) incrementalAlterConfigs(ctx context.Context, _ *request, req *kmsg.IncrementalAlterConfigsRequest) reply {
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	for i := range req.Resources {
		in := &req.Resources[i]
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		err := s.changeConfigs(ctx, in, req.ValidateOnly)
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

func (s *Server) changeConfigs(ctx context.Context, in *kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool) error {
	if in.ResourceType != kmsg.ConfigResourceTypeTopic {
		return errFixed(in.ResourceType)
	}
	d, err := s.broker.DescribeTopic(ctx, in.ResourceName)
	if err != nil {
		return err
	}
	set, seen := map[string]string{}, map[string]bool{}
	var unset []string
	for _, c := range in.Configs {
		if seen[c.Name] {
			return api.Errorf(api.CodeInvalidRequest, "%s is in the request more than once", c.Name)
		}
		seen[c.Name] = true
		if c.Op == kmsg.IncrementalAlterConfigOpDelete {
			unset = append(unset, c.Name)
			continue
		}
		if set[c.Name], err = changed(c, d.Settings); err != nil {
			return err
		}
	}
	return s.alterTopic(ctx, d.Name, set, unset, validateOnly)
}

// changed is the new value of a setting, of which lists can be added to and taken from.
func changed(c kmsg.IncrementalAlterConfigsRequestResourceConfig, now []api.TopicSetting) (string, error) {
	value := orEmpty(c.Value)
	if c.Op == kmsg.IncrementalAlterConfigOpSet {
		return value, nil
	}
	i := slices.IndexFunc(now, func(s api.TopicSetting) bool { return s.Key == c.Name })
	if i < 0 || configType(c.Name, now[i].Value) != kmsg.ConfigTypeList {
		return "", api.Errorf(api.CodeInvalidConfig, "%s is no list that could be added to or taken from", c.Name)
	}
	list := strings.Split(now[i].Value, ",")
	for _, v := range strings.Split(value, ",") {
		list = slices.DeleteFunc(list, func(x string) bool { return x == v })
		if c.Op == kmsg.IncrementalAlterConfigOpAppend {
			list = append(list, v)
		}
	}
	return strings.Join(list, ","), nil
}
