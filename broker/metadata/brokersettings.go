package metadata

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
)

// Settings of brokers that can be changed at run time. Most are defaults of topic settings: what a topic does not set itself, it inherits from the broker that has the
// replica, as in Kafka.

// BrokerSettingDef is one line of the table of broker settings.
type BrokerSettingDef struct {
	Key, Doc string
	Type     api.ConfigType
	// Topic is the topic setting that this is the default of; empty: none.
	Topic string
	parse func(value string) error
}

// inherited maps topic settings to the broker settings that are their defaults.
var inherited = map[string]string{
	"cleanup.policy":         "log.cleanup.policy",
	"compression.type":       "compression.type",
	"max.message.bytes":      "message.max.bytes",
	"message.timestamp.type": "log.message.timestamp.type",
	"retention.bytes":        "log.retention.bytes",
	"retention.ms":           "log.retention.ms",
	"segment.bytes":          "log.segment.bytes",
	"segment.ms":             "log.roll.ms",
}

// The settings of brokers that are not defaults of topic settings.
const (
	AutoCreateTopics         = "auto.create.topics.enable"
	AutoLeaderRebalance      = "auto.leader.rebalance.enable"
	CatchUpRate              = "leader.replication.throttled.rate"
	DefaultPartitions        = "num.partitions"
	DefaultReplicationFactor = "default.replication.factor"
	ScrubRate                = "scrub.bytes.per.second"
)

// minCatchUpRate is the least that moves of replicas can do with, in bytes per second.
const minCatchUpRate = 1 << 20

// BrokerSettings is the table of the settings that can be changed at run time, by key.
var BrokerSettings = brokerSettings()

func brokerSettings() []BrokerSettingDef {
	out := []BrokerSettingDef{
		{AutoCreateTopics, "Whether a Kafka client's asking for a topic creates it.", api.ConfigBool, "", parseBool},
		{AutoLeaderRebalance, "Whether leadership goes back to the preferred leaders (the first of each partition's replicas).", api.ConfigBool, "", parseBool},
		{CatchUpRate, "The most that the broker sends to replicas that are far behind, over all partitions, in bytes per second; live traffic is not counted. At least 1 MiB; -1: no limit.",
			api.ConfigLong, "", wholeNumber(minCatchUpRate, 1<<62, -1)},
		{DefaultPartitions, "The partitions of topics that are created without saying.", api.ConfigInt, "", wholeNumber(1, maxPartitionsPerTopic)},
		{DefaultReplicationFactor, "The replication factor of topics that are created without saying.", api.ConfigInt, "", wholeNumber(1, maxReplicas)},
		{ScrubRate, "The rate at which stored segments are checked in the background, in bytes per second. -1: not at all. (Flotilla's own.)",
			api.ConfigLong, "", wholeNumber(1, 1<<62, -1)},
	}
	for _, s := range settings {
		key, ok := inherited[s.key]
		if !ok {
			continue
		}
		parse := s.parse
		out = append(out, BrokerSettingDef{key, "The default of " + s.key + " for topics that do not set it. " + s.doc, TopicSettingType(s.key), s.key,
			func(value string) error { return parse(&TopicConfig{}, value) }})
	}
	slices.SortFunc(out, func(a, b BrokerSettingDef) int { return strings.Compare(a.Key, b.Key) })
	return out
}

func parseBool(value string) error {
	if value != "true" && value != "false" {
		return api.Errorf(api.CodeInvalidConfig, "it must be true or false")
	}
	return nil
}

// wholeNumber parses numbers from least to most, and those named besides.
func wholeNumber(least, most int64, besides ...int64) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || (n < least || n > most) && !slices.Contains(besides, n) {
			return api.Errorf(api.CodeInvalidConfig, "it must be a whole number from %d to %d", least, most)
		}
		return nil
	}
}

// TopicSettingType is the type of a topic setting.
func TopicSettingType(key string) api.ConfigType {
	switch key {
	case "cleanup.policy":
		return api.ConfigList
	case "max.message.bytes", "segment.bytes":
		return api.ConfigInt
	}
	i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
	if i < 0 {
		return api.ConfigString
	}
	if _, err := strconv.ParseInt(settings[i].def, 10, 64); err == nil {
		return api.ConfigLong
	}
	if parseBool(settings[i].def) == nil {
		return api.ConfigBool
	}
	return api.ConfigString
}

// TopicSettingDefault is the program's default of a topic setting; empty if there is no such setting.
func TopicSettingDefault(key string) string {
	for _, s := range settings {
		if s.key == key {
			return s.def
		}
	}
	return ""
}

func findBrokerSetting(key string) (BrokerSettingDef, bool) {
	i := slices.IndexFunc(BrokerSettings, func(s BrokerSettingDef) bool { return s.Key == key })
	if i < 0 {
		return BrokerSettingDef{}, false
	}
	return BrokerSettings[i], true
}

// ValidateBrokerSettings returns CodeInvalidConfig naming the first (by key) unknown key or bad value.
func ValidateBrokerSettings(set map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(set)) {
		s, ok := findBrokerSetting(key)
		if !ok {
			return unknownBrokerSetting(key)
		}
		if err := s.parse(set[key]); err != nil {
			return api.Errorf(api.CodeInvalidConfig, "%s=%q: %v", key, set[key], err)
		}
	}
	return nil
}

func unknownBrokerSetting(key string) error {
	keys := make([]string, len(BrokerSettings))
	for i, s := range BrokerSettings {
		keys[i] = s.Key
	}
	return api.Errorf(api.CodeInvalidConfig, "there is no broker setting %q that can be altered; there are: %s", key, strings.Join(keys, ", "))
}

// scope is the key of State.BrokerSettings for a broker, or, with api.NoBroker, for all.
func scope(id api.BrokerID) string {
	if id == api.NoBroker {
		return ""
	}
	return strconv.Itoa(int(id))
}

// SetAt returns what is set at run time for a broker alone, or, with api.NoBroker, for all. It must not be changed.
func (s *State) SetAt(id api.BrokerID) map[string]string { return s.BrokerSettings[scope(id)] }

// BrokerValues lists what is set at run time for a setting of a broker, the value in effect first. Values that this release does not accept count as not set.
func (s *State) BrokerValues(id api.BrokerID, key string) []api.ConfigValue {
	def, ok := findBrokerSetting(key)
	if !ok {
		return nil
	}
	var out []api.ConfigValue
	for _, at := range []struct {
		id     api.BrokerID
		source api.ConfigSource
	}{{id, api.SourceDynamicBroker}, {api.NoBroker, api.SourceDynamicDefault}} {
		if v, ok := s.SetAt(at.id)[key]; ok && def.parse(v) == nil {
			out = append(out, api.ConfigValue{Key: key, Value: v, Source: at.source})
		}
	}
	return out
}

// BrokerValue is the first of BrokerValues, if there are any.
func (s *State) BrokerValue(id api.BrokerID, key string) (string, bool) {
	if list := s.BrokerValues(id, key); len(list) > 0 {
		return list[0].Value, true
	}
	return "", false
}

// TopicConfig returns a topic's settings in effect on a broker.
func (s *State) TopicConfig(t *Topic, id api.BrokerID) TopicConfig {
	c := t.Config()
	for _, own := range settings {
		key, ok := inherited[own.key]
		if v, set := t.Settings[own.key]; !ok || set && own.parse(&TopicConfig{}, v) == nil {
			continue
		}
		if v, ok := s.BrokerValue(id, key); ok {
			_ = own.parse(&c, v) // BrokerValue has tried
		}
	}
	return c
}

// DescribeTopicSettings is DescribeSettings with what a broker has for the settings that the topic does not set, and all sources.
func (s *State) DescribeTopicSettings(set map[string]string, id api.BrokerID) []api.TopicSetting {
	out := DescribeSettings(set)
	for i := range out {
		t := &out[i]
		t.Type = TopicSettingType(t.Key)
		if !t.IsDefault {
			t.Synonyms = append(t.Synonyms, api.ConfigValue{Key: t.Key, Value: t.Value, Source: api.SourceTopic})
		}
		name := t.Key
		if key, ok := inherited[t.Key]; ok {
			name = key
			t.Synonyms = append(t.Synonyms, s.BrokerValues(id, key)...)
		}
		t.Synonyms = append(t.Synonyms, api.ConfigValue{Key: name, Value: TopicSettingDefault(t.Key), Source: api.SourceDefault})
		t.Value, t.Source = t.Synonyms[0].Value, t.Synonyms[0].Source
	}
	return out
}

// AlterBroker sets and unsets settings of a broker, or, with api.NoBroker, of all. CodeUnknownBroker, CodeInvalidConfig.
type AlterBroker struct {
	Broker api.BrokerID      `json:"broker"`
	Set    map[string]string `json:"set,omitempty"`
	Unset  []string          `json:"unset,omitempty"`
}

func (*AlterBroker) kind() string { return "alter-broker" }

func (c *AlterBroker) check(s *State) error {
	if err := ValidateBrokerSettings(c.Set); err != nil {
		return err
	}
	for _, key := range c.Unset {
		// What another release has set can be unset.
		if _, known := findBrokerSetting(key); !known && s.SetAt(c.Broker)[key] == "" {
			return unknownBrokerSetting(key)
		}
	}
	return nil
}

func (c *AlterBroker) apply(ch *change) (Result, error) {
	if c.Broker != api.NoBroker && ch.s.Brokers[c.Broker] == nil {
		return Result{}, api.Errorf(api.CodeUnknownBroker, "there is no broker %d", c.Broker)
	}
	old := ch.s.SetAt(c.Broker)
	next := cloneMap(old)
	for _, key := range c.Unset {
		delete(next, key)
	}
	maps.Copy(next, c.Set)
	if !maps.Equal(next, old) {
		ch.setBrokerSettings(c.Broker, next)
	}
	return Result{}, nil
}

func (ch *change) setBrokerSettings(id api.BrokerID, set map[string]string) {
	ch.s.BrokerSettings, ch.dirty = cloneMap(ch.s.BrokerSettings), true
	if len(set) == 0 {
		delete(ch.s.BrokerSettings, scope(id))
	} else {
		ch.s.BrokerSettings[scope(id)] = set
	}
}
