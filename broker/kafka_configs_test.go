package broker_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
)

// Settings through Kafka's protocol, in real clusters.

const (
	topicConfig  = kmsg.ConfigResourceTypeTopic
	brokerConfig = kmsg.ConfigResourceTypeBroker

	kafkaInvalidConfig    = 40
	kafkaInvalidRequest   = 42
	kafkaUnknownBroker    = 102
	kafkaTopicExists      = 36
	kafkaInvalidTopic     = 17
	kafkaInvalidPartition = 37
)

// describeConfig asks a broker for one setting.
func describeConfig(c *brokertest.Cluster, ask api.BrokerID, kind kmsg.ConfigResourceType, name, key string) (kmsg.DescribeConfigsResponseResourceConfig, error) {
	c.T.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.Version, req.IncludeDocumentation, req.IncludeSynonyms = 4, true, true
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kind, name, []string{key}
	req.Resources = append(req.Resources, r)
	resp := brokertest.AskKafka[*kmsg.DescribeConfigsResponse](c, ask, req).Resources[0]
	if resp.ErrorCode != 0 || len(resp.Configs) != 1 {
		return kmsg.DescribeConfigsResponseResourceConfig{}, fmt.Errorf("%s of %q: error %d, %d settings", key, name, resp.ErrorCode, len(resp.Configs))
	}
	return resp.Configs[0], nil
}

// shown is a setting as "value source; synonym=value source; ...".
func shown(s kmsg.DescribeConfigsResponseResourceConfig) string {
	out := []string{fmt.Sprintf("%s %v", *s.Value, s.Source)}
	for _, y := range s.ConfigSynonyms {
		out = append(out, fmt.Sprintf("%s=%s %v", y.Name, *y.Value, y.Source))
	}
	return strings.Join(out, "; ")
}

// alterConfig sets a setting ("": deletes it), and returns the error code.
func alterConfig(c *brokertest.Cluster, ask api.BrokerID, kind kmsg.ConfigResourceType, name, key, value string, validateOnly bool) int16 {
	c.T.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.Version, req.ValidateOnly = 1, validateOnly
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	rc.Name, rc.Value = key, &value
	if value == "" {
		rc.Op, rc.Value = kmsg.IncrementalAlterConfigOpDelete, nil
	}
	r.Configs = append(r.Configs, rc)
	req.Resources = append(req.Resources, r)
	return brokertest.AskKafka[*kmsg.IncrementalAlterConfigsResponse](c, ask, req).Resources[0].ErrorCode
}

// A topic inherits what is set for all brokers, and that what is set for one of them; what is set on the topic goes before.
func TestKafkaConfigsAreInherited(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("plain", 1, 3)
	c.CreateTopic("own", 1, 3, "retention.ms", "5000")
	expect := func(ask api.BrokerID, kind kmsg.ConfigResourceType, name, key, want string) {
		t.Helper()
		c.Eventually(fmt.Sprintf("broker %d shows %s of %q as %s", ask, key, name, want), func() error {
			s, err := describeConfig(c, ask, kind, name, key)
			if err == nil && shown(s) != want {
				err = fmt.Errorf("%s", shown(s))
			}
			return err
		})
	}
	set := func(name, key, value string) {
		t.Helper()
		if code := alterConfig(c, 1, brokerConfig, name, key, value, false); code != 0 {
			t.Fatalf("setting %s of %q to %q: %d", key, name, value, code)
		}
	}
	const week = "log.retention.ms=604800000 DEFAULT_CONFIG"
	expect(2, topicConfig, "plain", "retention.ms", "604800000 DEFAULT_CONFIG; "+week)
	set("", "log.retention.ms", "7000")
	expect(2, topicConfig, "plain", "retention.ms", "7000 DYNAMIC_DEFAULT_BROKER_CONFIG; log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG; "+week)
	expect(2, topicConfig, "own", "retention.ms", "5000 DYNAMIC_TOPIC_CONFIG; retention.ms=5000 DYNAMIC_TOPIC_CONFIG; log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG; "+week)
	expect(2, brokerConfig, "2", "log.retention.ms", "7000 DYNAMIC_DEFAULT_BROKER_CONFIG; log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG; "+week)
	expect(3, brokerConfig, "", "log.retention.ms", "7000 DYNAMIC_DEFAULT_BROKER_CONFIG; log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG")
	set("3", "log.retention.ms", "9000")
	expect(3, topicConfig, "plain", "retention.ms",
		"9000 DYNAMIC_BROKER_CONFIG; log.retention.ms=9000 DYNAMIC_BROKER_CONFIG; log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG; "+week)
	expect(2, topicConfig, "plain", "retention.ms", "7000 DYNAMIC_DEFAULT_BROKER_CONFIG; log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG; "+week)
	set("", "log.retention.ms", "")
	set("3", "log.retention.ms", "")
	expect(3, topicConfig, "plain", "retention.ms", "604800000 DEFAULT_CONFIG; "+week)
}

// What is set at run time has its effect, and survives restarts.
func TestKafkaBrokerConfigsHaveEffect(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	c.CreateTopic("small", 1, 3)
	for key, value := range map[string]string{
		"message.max.bytes": "2000", "num.partitions": "5", "default.replication.factor": "2", "log.message.timestamp.type": "LogAppendTime", "scrub.bytes.per.second": "-1",
		"leader.replication.throttled.rate": "5000000",
	} {
		if code := alterConfig(c, 2, brokerConfig, "", key, value, false); code != 0 {
			t.Fatalf("%s: %d", key, code)
		}
	}
	large := string(make([]byte, 3000))
	c.Eventually("a batch above message.max.bytes is refused", func() error {
		ctx, cancel := c.Context()
		defer cancel()
		if _, err := c.TryProduce(ctx, "small", 0, large); err == nil || !strings.Contains(err.Error(), "2000") {
			return fmt.Errorf("it says %v", err)
		}
		return nil
	})
	if code := alterConfig(c, 1, topicConfig, "small", "max.message.bytes", "100000", false); code != 0 {
		t.Fatalf("setting max.message.bytes: %d", code)
	}
	c.Eventually("the topic's own setting goes before", func() error {
		ctx, cancel := c.Context()
		defer cancel()
		_, err := c.TryProduce(ctx, "small", 0, large)
		return err
	})
	tries := 0
	c.Eventually("defaults of new topics", func() error {
		tries++
		if d := c.CreateTopic("new"+strconv.Itoa(tries), 0, 0); len(d.Partitions) != 5 || d.ReplicationFactor != 2 {
			return fmt.Errorf("%d partitions, replication factor %d", len(d.Partitions), d.ReplicationFactor)
		}
		return nil
	})
	c.Stop(3)
	c.Restart(3)
	c.Eventually("a restarted broker has it too", func() error {
		s, err := describeConfig(c, 3, brokerConfig, "3", "message.max.bytes")
		if err == nil && *s.Value != "2000" {
			err = fmt.Errorf("%s", shown(s))
		}
		return err
	})
}

// Auto-creation can be turned off while brokers run.
func TestKafkaAutoCreation(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{})
	metadataOf := func(name string, allow bool) kmsg.MetadataResponseTopic {
		req := kmsg.NewPtrMetadataRequest()
		req.Version, req.AllowAutoTopicCreation = 12, allow
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &name
		req.Topics = append(req.Topics, rt)
		return brokertest.AskKafka[*kmsg.MetadataResponse](c, 1, req).Topics[0]
	}
	if m := metadataOf("asked", false); m.ErrorCode != kafkaUnknownTopic {
		t.Errorf("a client that does not allow creation is told %d", m.ErrorCode)
	}
	if m := metadataOf("asked", true); m.ErrorCode != 0 || len(m.Partitions) != 1 {
		t.Errorf("asking for a topic: %+v", m)
	}
	for value, want := range map[string]int16{"false": kafkaUnknownTopic} {
		if code := alterConfig(c, 2, brokerConfig, "1", "auto.create.topics.enable", value, false); code != 0 {
			t.Fatalf("altering: %d", code)
		}
		c.Eventually("asking does not create any more", func() error {
			if s, err := describeConfig(c, 1, brokerConfig, "1", "auto.create.topics.enable"); err != nil || *s.Value != value {
				return fmt.Errorf("not yet altered: %v", err)
			}
			return nil
		})
		if m := metadataOf("later", true); m.ErrorCode != want {
			t.Errorf("with %s: %d", value, m.ErrorCode)
		}
	}
}

func TestKafkaConfigsRefused(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	for _, r := range []struct {
		kind             kmsg.ConfigResourceType
		name, key, value string
		want             int16
	}{
		{brokerConfig, "", "log.retention.ms", "soon", kafkaInvalidConfig},
		{brokerConfig, "", "no.such.setting", "1", kafkaInvalidConfig},
		{brokerConfig, "", "no.such.setting", "", 0}, // as kafka-reassign-partitions --verify does
		{topicConfig, "t", "leader.replication.throttled.replicas", "", 0},
		{brokerConfig, "", "broker.rack", "r1", kafkaInvalidRequest},
		{brokerConfig, "", "message.max.bytes", "33554433", kafkaInvalidConfig},
		{brokerConfig, "9", "log.retention.ms", "1000", kafkaUnknownBroker},
		{brokerConfig, "one", "log.retention.ms", "1000", kafkaInvalidRequest},
		{brokerConfig, "1", "leader.replication.throttled.rate", "1000", kafkaInvalidConfig},
		{topicConfig, "nope", "retention.ms", "1000", kafkaUnknownTopic},
		{topicConfig, "t", "retention.ms", "-7", kafkaInvalidConfig},
		{topicConfig, "t", "log.retention.ms", "7", kafkaInvalidConfig},
		{8, "1", "root", "DEBUG", kafkaInvalidRequest},
	} {
		for _, validateOnly := range []bool{true, false} {
			if got := alterConfig(c, 1, r.kind, r.name, r.key, r.value, validateOnly); got != r.want {
				t.Errorf("%q: %s=%q (validate only: %v): %d, want %d", r.name, r.key, r.value, validateOnly, got, r.want)
			}
		}
	}
	if code := alterConfig(c, 1, brokerConfig, "", "log.retention.ms", "1000", true); code != 0 {
		t.Errorf("validating only: %d", code)
	}
	if code := alterConfig(c, 1, topicConfig, "t", "retention.ms", "1000", true); code != 0 {
		t.Errorf("validating only: %d", code)
	}
	for _, at := range []struct {
		kind      kmsg.ConfigResourceType
		name, key string
	}{{brokerConfig, "1", "log.retention.ms"}, {topicConfig, "t", "retention.ms"}} {
		if s, err := describeConfig(c, 1, at.kind, at.name, at.key); err != nil || *s.Value != "604800000" {
			t.Errorf("validating changed %s: %v, %v", at.key, shown(s), err)
		}
	}
	if _, err := describeConfig(c, 1, brokerConfig, "2", "log.retention.ms"); err == nil {
		t.Error("broker 1 answers for broker 2")
	}
}

// AlterConfigs replaces everything; IncrementalAlterConfigs adds to lists; read-only settings are told as such, with documentation and types.
func TestKafkaConfigForms(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	for _, key := range []string{"log.retention.ms", "log.segment.bytes"} {
		if code := alterConfig(c, 1, brokerConfig, "", key, "1000000", false); code != 0 {
			t.Fatalf("%s: %d", key, code)
		}
	}
	for version := int16(0); version <= 2; version++ {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.Version = version
		r := kmsg.NewAlterConfigsRequestResource()
		r.ResourceType = brokerConfig
		rc := kmsg.NewAlterConfigsRequestResourceConfig()
		rc.Name, rc.Value = "log.retention.ms", kmsg.StringPtr("2000000")
		r.Configs = append(r.Configs, rc)
		req.Resources = append(req.Resources, r)
		if resp := brokertest.AskKafka[*kmsg.AlterConfigsResponse](c, 1, req); resp.Resources[0].ErrorCode != 0 {
			t.Fatalf("version %d: %+v", version, resp)
		}
	}
	if s, err := describeConfig(c, 1, brokerConfig, "1", "log.segment.bytes"); err != nil || s.Source != kmsg.ConfigSourceDefaultConfig {
		t.Errorf("what AlterConfigs does not name: %s, %v", shown(s), err)
	}
	if s, err := describeConfig(c, 1, brokerConfig, "1", "log.retention.ms"); err != nil || *s.Value != "2000000" || s.ConfigType != kmsg.ConfigTypeLong || s.ReadOnly || s.Documentation == nil {
		t.Errorf("what it names: %+v, %v", s, err)
	}
	if s, err := describeConfig(c, 1, brokerConfig, "1", "node.id"); err != nil || *s.Value != "1" || !s.ReadOnly || s.Source != kmsg.ConfigSourceStaticBrokerConfig || s.ConfigType != kmsg.ConfigTypeInt {
		t.Errorf("a fixed setting: %+v, %v", s, err)
	}
	for version := int16(0); version <= 4; version++ {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.Version = version
		r := kmsg.NewDescribeConfigsRequestResource()
		r.ResourceType, r.ResourceName = brokerConfig, "1"
		req.Resources = append(req.Resources, r)
		resp := brokertest.AskKafka[*kmsg.DescribeConfigsResponse](c, 1, req).Resources[0]
		last := ""
		for _, s := range resp.Configs {
			if s.Name <= last || s.IsSensitive || version >= 1 && s.Source == 0 {
				t.Errorf("version %d: %+v", version, s)
			}
			last = s.Name
		}
		if resp.ErrorCode != 0 || len(resp.Configs) < 20 {
			t.Errorf("version %d: %d settings, error %d", version, len(resp.Configs), resp.ErrorCode)
		}
	}
}
