package kafka

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DescribeConfigs, versions 0 to 4. v1: sources and synonyms; v3: types and documentation; v4: flexible. Topics and brokers have settings; a broker tells only
// its own, and, under an empty name, those that were altered for all brokers.

// configSources are Kafka's numbers of the sources.
var configSources = map[api.ConfigSource]kmsg.ConfigSource{
	api.SourceTopic:          kmsg.ConfigSourceDynamicTopicConfig,
	api.SourceDynamicBroker:  kmsg.ConfigSourceDynamicBrokerConfig,
	api.SourceDynamicDefault: kmsg.ConfigSourceDynamicDefaultBrokerConfig,
	api.SourceStaticBroker:   kmsg.ConfigSourceStaticBrokerConfig,
	api.SourceDefault:        kmsg.ConfigSourceDefaultConfig,
}

func (s *Server) describeConfigs(ctx context.Context, _ *request, req *kmsg.DescribeConfigsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for i := range req.Resources {
		in := &req.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		configs, err := s.configsOf(ctx, in.ResourceType, in.ResourceName)
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		for _, c := range configs {
			if in.ConfigNames == nil || slices.Contains(in.ConfigNames, c.Key) {
				out.Configs = append(out.Configs, toConfig(c, req))
			}
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// configsOf lists the settings of a topic or a broker.
func (s *Server) configsOf(ctx context.Context, kind kmsg.ConfigResourceType, name string) ([]api.BrokerSetting, error) {
	switch kind {
	case kmsg.ConfigResourceTypeTopic:
		d, err := s.broker.DescribeTopic(ctx, name)
		if err != nil {
			return nil, err
		}
		out := make([]api.BrokerSetting, len(d.Settings))
		for i, c := range d.Settings {
			out[i] = api.BrokerSetting{
				ConfigValue: api.ConfigValue{Key: c.Key, Value: c.Value, Source: c.Source}, Type: c.Type, Documentation: c.Documentation, Synonyms: c.Synonyms,
			}
		}
		return out, nil
	case kmsg.ConfigResourceTypeBroker:
		id, err := brokerNamed(name)
		if err != nil {
			return nil, err
		}
		return s.broker.BrokerSettings(ctx, id)
	}
	return nil, errKind(kind)
}

// brokerNamed is the broker that a resource's name means: api.NoBroker for all of them.
func brokerNamed(name string) (api.BrokerID, error) {
	if name == "" {
		return api.NoBroker, nil
	}
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil || id < 0 {
		return api.NoBroker, api.Errorf(api.CodeInvalidRequest, "a broker is named by its number, not %q", name)
	}
	return api.BrokerID(id), nil
}

func errKind(kind kmsg.ConfigResourceType) error {
	return api.Errorf(api.CodeInvalidRequest, "resource type %d has no settings here: only topics and brokers do", kind)
}

func toConfig(s api.BrokerSetting, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.Source = s.Key, text(s.Value), s.ReadOnly, configSources[s.Source]
	c.IsDefault = s.Source == api.SourceDefault
	c.ConfigType = kmsg.ConfigType(s.Type)
	if req.IncludeDocumentation {
		c.Documentation = orNil(s.Documentation)
	}
	if !req.IncludeSynonyms {
		return c
	}
	for _, v := range s.Synonyms {
		synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
		synonym.Name, synonym.Value, synonym.Source = v.Key, text(v.Value), configSources[v.Source]
		c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
	}
	return c
}
