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
	count := map[resource]int{}
	for _, in := range req.Resources {
		count[resource{in.ResourceType, in.ResourceName}]++
	}
	for i := range req.Resources {
		in := &req.Resources[i]
		out := kmsg.NewIncrementalAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		err := errTwice(count[resource{in.ResourceType, in.ResourceName}])
		if err == nil {
			err = s.changeConfigs(ctx, in, req.ValidateOnly)
		}
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

func (s *Server) changeConfigs(ctx context.Context, in *kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool) error {
	switch in.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		return s.changeTopic(ctx, in, validateOnly)
	case kmsg.ConfigResourceTypeBroker:
		return s.changeBroker(ctx, in, validateOnly)
	}
	return errKind(in.ResourceType)
}

func (s *Server) changeTopic(ctx context.Context, in *kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool) error {
	d, err := s.broker.DescribeTopic(ctx, in.ResourceName)
	if err != nil {
		return err
	}
	now := func(key string) (string, api.ConfigType) {
		c, _ := settingNamed(d.Settings, key)
		return c.Value, c.Type
	}
	set, unset, err := changes(in.Configs, now)
	if err != nil {
		return err
	}
	return s.alterTopic(ctx, d, set, unset, validateOnly)
}

func (s *Server) changeBroker(ctx context.Context, in *kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool) error {
	id, err := brokerNamed(in.ResourceName)
	if err != nil {
		return err
	}
	// Lists can be added to as this broker has them, or as they are set for all.
	list, _ := s.broker.BrokerSettings(ctx, s.opts.Self)
	now := func(key string) (string, api.ConfigType) {
		i := slices.IndexFunc(list, func(c api.BrokerSetting) bool { return c.Key == key })
		if i < 0 {
			return "", 0
		}
		for _, v := range list[i].Synonyms {
			if v.Source != api.SourceDynamicBroker || id == s.opts.Self {
				return v.Value, list[i].Type
			}
		}
		return "", list[i].Type
	}
	set, unset, err := changes(in.Configs, now)
	if err != nil {
		return err
	}
	return s.broker.AlterBroker(ctx, api.AlterBrokerRequest{Broker: id, Set: set, Unset: unset, ValidateOnly: validateOnly})
}

// changes sorts a request into what it sets and what it unsets. now is the present value of a setting, and its type.
func changes(configs []kmsg.IncrementalAlterConfigsRequestResourceConfig, now func(string) (string, api.ConfigType)) (set map[string]string, unset []string, err error) {
	set = map[string]string{}
	seen := map[string]bool{}
	for _, c := range configs {
		if seen[c.Name] {
			return nil, nil, api.Errorf(api.CodeInvalidRequest, "%s is in the request more than once", c.Name)
		}
		seen[c.Name] = true
		switch {
		case c.Op == kmsg.IncrementalAlterConfigOpDelete:
			unset = append(unset, c.Name)
			continue
		case c.Value == nil:
			return nil, nil, errNull(c.Name)
		}
		if set[c.Name], err = changed(c, now); err != nil {
			return nil, nil, err
		}
	}
	return set, unset, nil
}

// changed is the new value of a setting, of which lists can be added to and taken from.
func changed(c kmsg.IncrementalAlterConfigsRequestResourceConfig, now func(string) (string, api.ConfigType)) (string, error) {
	value := orEmpty(c.Value)
	switch c.Op {
	case kmsg.IncrementalAlterConfigOpSet:
		return value, nil
	case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
	default:
		return "", api.Errorf(api.CodeInvalidRequest, "operation %d on %s is unknown", c.Op, c.Name)
	}
	had, kind := now(c.Name)
	if kind != api.ConfigList {
		return "", api.Errorf(api.CodeInvalidConfig, "%s is no list that could be added to or taken from", c.Name)
	}
	list := slices.DeleteFunc(strings.Split(had, ","), func(x string) bool { return x == "" })
	for _, v := range strings.Split(value, ",") {
		there := slices.Contains(list, v)
		switch {
		case c.Op == kmsg.IncrementalAlterConfigOpAppend && !there:
			list = append(list, v)
		case c.Op == kmsg.IncrementalAlterConfigOpSubtract:
			list = slices.DeleteFunc(list, func(x string) bool { return x == v })
		}
	}
	return strings.Join(list, ","), nil
}
