package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// AlterConfigs, versions 0 to 2. v2: flexible. It replaces all settings of a topic or a broker: those not named go back to what they are without.

func (s *Server) alterConfigs(ctx context.Context, _ *request, req *kmsg.AlterConfigsRequest) reply {
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	count := map[resource]int{}
	for _, in := range req.Resources {
		count[resource{in.ResourceType, in.ResourceName}]++
	}
	for i := range req.Resources {
		in := &req.Resources[i]
		out := kmsg.NewAlterConfigsResponseResource()
		out.ResourceType, out.ResourceName = in.ResourceType, in.ResourceName
		err := errTwice(count[resource{in.ResourceType, in.ResourceName}])
		if err == nil {
			err = s.replaceConfigs(ctx, in, req.ValidateOnly)
		}
		out.ErrorCode, out.ErrorMessage = codeOf(err, admin), messageOf(err)
		resp.Resources = append(resp.Resources, out)
	}
	return resp
}

// resource names a topic or a broker.
type resource struct {
	kind kmsg.ConfigResourceType
	name string
}

func errTwice(count int) error {
	if count > 1 {
		return api.Errorf(api.CodeInvalidRequest, "the resource is in the request more than once")
	}
	return nil
}

func (s *Server) replaceConfigs(ctx context.Context, in *kmsg.AlterConfigsRequestResource, validateOnly bool) error {
	set := map[string]string{}
	for _, c := range in.Configs {
		if _, twice := set[c.Name]; twice {
			return api.Errorf(api.CodeInvalidRequest, "%s is in the request more than once", c.Name)
		}
		if c.Value == nil {
			return errNull(c.Name)
		}
		set[c.Name] = *c.Value
	}
	switch in.ResourceType {
	case kmsg.ConfigResourceTypeBroker:
		id, err := brokerNamed(in.ResourceName)
		if err != nil {
			return err
		}
		return s.broker.AlterBroker(ctx, api.AlterBrokerRequest{Broker: id, Set: set, Replace: true, ValidateOnly: validateOnly})
	case kmsg.ConfigResourceTypeTopic:
	default:
		return errKind(in.ResourceType)
	}
	d, err := s.broker.DescribeTopic(ctx, in.ResourceName)
	if err != nil {
		return err
	}
	var unset []string
	for _, c := range d.Settings {
		if _, named := set[c.Key]; !named && !c.IsDefault {
			unset = append(unset, c.Key)
		}
	}
	return s.alterTopic(ctx, d, set, unset, validateOnly)
}

func errNull(name string) error {
	return api.Errorf(api.CodeInvalidRequest, "%s has no value: delete it with IncrementalAlterConfigs, or leave it out", name)
}

// alterTopic sets and unsets. What is not set, or not known at all, can be unset without effect, as in Kafka: tools do so to be sure. To validate only, it plans
// a topic with the same settings.
func (s *Server) alterTopic(ctx context.Context, d api.TopicDescription, set map[string]string, unset []string, validateOnly bool) error {
	if !validateOnly {
		unset = slices.DeleteFunc(unset, func(key string) bool {
			c, known := settingNamed(d.Settings, key)
			return !known || c.IsDefault
		})
		_, err := s.broker.AlterTopic(ctx, d.Name, set, unset)
		return err
	}
	_, err := s.broker.CreateTopic(ctx, api.CreateTopicRequest{Name: validationName, Partitions: 1, ReplicationFactor: 1, Settings: set, ValidateOnly: true})
	return err
}

func settingNamed(list []api.TopicSetting, key string) (api.TopicSetting, bool) {
	for _, s := range list {
		if s.Key == key {
			return s, true
		}
	}
	return api.TopicSetting{}, false
}

// validationName is of a topic that is never created.
const validationName = "validation-only.flotilla"
