package kafka

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// DescribeConfigs, versions 0 to 4. v1: sources and synonyms; v3: types and documentation; v4: flexible. Topics have settings, which can be altered;
// those of a broker are fixed when it starts.

func (s *Server) describeConfigs(ctx context.Context, _ *request, req *kmsg.DescribeConfigsRequest) reply {
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for i := range req.Resources {
		in := &req.Resources[i]
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		configs, err := s.configsOf(ctx, in)
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		for _, c := range configs {
			if in.ConfigNames != nil && !slices.Contains(in.ConfigNames, c.Name) {
				continue
			}
			if !req.IncludeDocumentation {
				c.Documentation = nil
			}
			if !req.IncludeSynonyms {
				c.ConfigSynonyms = nil
			}
			out.Configs = append(out.Configs, c)
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

func (s *Server) configsOf(ctx context.Context, in *kmsg.DescribeConfigsRequestResource) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	switch in.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		d, err := s.broker.DescribeTopic(ctx, in.ResourceName)
		if err != nil {
			return nil, err
		}
		var out []kmsg.DescribeConfigsResponseResourceConfig
		for _, c := range d.Settings {
			out = append(out, toConfig(c.Key, c.Value, c.Documentation, settingSource(c), false))
		}
		return out, nil
	case kmsg.ConfigResourceTypeBroker:
		return s.brokerConfigs(in.ResourceName)
	}
	return nil, api.Errorf(api.CodeInvalidRequest, "only topics and brokers have settings here")
}

// brokerConfigs are this broker's. The cluster-wide dynamic ones, which an empty name asks for, do not exist.
func (s *Server) brokerConfigs(name string) ([]kmsg.DescribeConfigsResponseResourceConfig, error) {
	if name == "" {
		return nil, nil
	}
	if name != strconv.Itoa(int(s.opts.Self)) {
		return nil, api.Errorf(api.CodeInvalidRequest, "this is broker %d: ask broker %q for its settings", s.opts.Self, name)
	}
	var out []kmsg.DescribeConfigsResponseResourceConfig
	for _, c := range s.opts.Configs {
		out = append(out, toConfig(c.Name, c.Value, c.Documentation, kmsg.ConfigSourceStaticBrokerConfig, true))
	}
	return out, nil
}

func settingSource(c api.TopicSetting) kmsg.ConfigSource {
	if c.IsDefault {
		return kmsg.ConfigSourceDefaultConfig
	}
	return kmsg.ConfigSourceDynamicTopicConfig
}

func toConfig(name, value, doc string, source kmsg.ConfigSource, readOnly bool) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.Source, c.IsDefault = name, text(value), readOnly, source, source == kmsg.ConfigSourceDefaultConfig
	c.Documentation, c.ConfigType = orNil(doc), configType(name, value)
	synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
	synonym.Name, synonym.Value, synonym.Source = name, c.Value, source
	c.ConfigSynonyms = append(c.ConfigSynonyms, synonym)
	return c
}

// configType is Kafka's type of a setting.
func configType(name, value string) kmsg.ConfigType {
	switch name {
	case "cleanup.policy", "log.dirs", "advertised.listeners":
		return kmsg.ConfigTypeList
	case "retention.ms", "retention.bytes", "segment.ms":
		return kmsg.ConfigTypeLong
	case "broker.rack":
		return kmsg.ConfigTypeString
	}
	if _, err := strconv.ParseInt(value, 10, 64); err == nil {
		return kmsg.ConfigTypeInt
	}
	if _, err := strconv.ParseBool(value); err == nil {
		return kmsg.ConfigTypeBoolean
	}
	return kmsg.ConfigTypeString
}

// errFixed refuses to alter what cannot be.
func errFixed(kind kmsg.ConfigResourceType) error {
	return api.Errorf(api.CodeInvalidRequest, "settings of %s cannot be altered: only those of topics can", kindName(kind))
}

func kindName(kind kmsg.ConfigResourceType) string {
	if kind == kmsg.ConfigResourceTypeBroker {
		return "a broker, which are fixed when it starts,"
	}
	return fmt.Sprintf("resource type %d", kind)
}
