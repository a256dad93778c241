package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/metadata"
)

// The settings of this broker: those of metadata.BrokerSettings, which can be altered while it runs, over what its configuration says, and some that are only told.

// value is the text of a setting in effect: altered at run time, else as configured.
func (b *Broker) value(key, configured string) string {
	if v, ok := b.node.State().BrokerValue(b.cfg.ID, key); ok {
		return v
	}
	return configured
}

func (b *Broker) number(key string, configured int64) int64 {
	n, err := strconv.ParseInt(b.value(key, ""), 10, 64)
	if err != nil { // not altered: what is stored was checked
		return configured
	}
	return n
}

func (b *Broker) flag(key string, configured bool) bool {
	return b.value(key, strconv.FormatBool(configured)) == "true"
}

// AutoCreateTopics implements api.Configs.
func (b *Broker) AutoCreateTopics() bool {
	return b.flag(metadata.AutoCreateTopics, b.cfg.AutoCreateTopics)
}

func (b *Broker) balancesLeaders() bool {
	return b.flag(metadata.AutoLeaderRebalance, b.cfg.AutoBalanceLeaders)
}

// scrubRate is in bytes per second; below 0: no scrubbing.
func (b *Broker) scrubRate() int64 {
	return b.number(metadata.ScrubRate, b.cfg.Scrub.BytesPerSecond)
}

func (b *Broker) defaultPartitions() int32 {
	return int32(b.number(metadata.DefaultPartitions, int64(b.cfg.DefaultPartitions)))
}

// defaultReplicationFactor is what was set, or 3 if the cluster has so many brokers.
func (b *Broker) defaultReplicationFactor() int16 {
	return b.defaultRF(int16(b.number(metadata.DefaultReplicationFactor, int64(b.cfg.DefaultReplicationFactor))))
}

// applyBrokerSettings hands on what parts of the broker do not look up themselves.
func (b *Broker) applyBrokerSettings() {
	b.transport.SetCatchUpRate(b.number(metadata.CatchUpRate, b.cfg.CatchUpBytesPerSecond))
}

// configured is what the broker's own configuration says for the settings that can be altered; what it says nothing about is as the program has it.
func (b *Broker) configured() map[string]string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	return map[string]string{
		metadata.AutoCreateTopics:         strconv.FormatBool(b.cfg.AutoCreateTopics),
		metadata.AutoLeaderRebalance:      strconv.FormatBool(b.cfg.AutoBalanceLeaders),
		metadata.CatchUpRate:              number(b.cfg.CatchUpBytesPerSecond),
		metadata.DefaultPartitions:        number(int64(b.cfg.DefaultPartitions)),
		metadata.DefaultReplicationFactor: number(int64(b.defaultRF(b.cfg.DefaultReplicationFactor))),
		metadata.ScrubRate:                number(b.cfg.Scrub.BytesPerSecond),
	}
}

// programDefaults are the values that configured has where nothing was configured.
func (b *Broker) programDefaults() map[string]string {
	d := DefaultConfig()
	return map[string]string{
		metadata.AutoCreateTopics:         strconv.FormatBool(d.AutoCreateTopics),
		metadata.AutoLeaderRebalance:      strconv.FormatBool(d.AutoBalanceLeaders),
		metadata.CatchUpRate:              strconv.FormatInt(d.CatchUpBytesPerSecond, 10),
		metadata.DefaultPartitions:        strconv.Itoa(int(d.DefaultPartitions)),
		metadata.DefaultReplicationFactor: strconv.Itoa(int(b.defaultRF(0))),
		metadata.ScrubRate:                strconv.FormatInt(d.Scrub.BytesPerSecond, 10),
	}
}

// BrokerSettings implements api.Configs.
func (b *Broker) BrokerSettings(ctx context.Context, id api.BrokerID) ([]api.BrokerSetting, error) {
	b.syncMetadata(ctx)
	if id == api.NoBroker {
		return b.settingsOfAll(), nil
	}
	if id != b.cfg.ID {
		return nil, api.Errorf(api.CodeInvalidRequest, "this is broker %d: ask broker %d for its settings", b.cfg.ID, id)
	}
	out := b.fixedSettings()
	configured, defaults := b.configured(), b.programDefaults()
	for _, def := range metadata.BrokerSettings {
		s := api.BrokerSetting{Type: def.Type, Documentation: def.Doc, Synonyms: b.node.State().BrokerValues(id, def.Key)}
		standard, ok := defaults[def.Key]
		if !ok {
			standard = metadata.TopicSettingDefault(def.Topic)
		}
		if v, ok := configured[def.Key]; ok && v != standard {
			s.Synonyms = append(s.Synonyms, api.ConfigValue{Key: def.Key, Value: v, Source: api.SourceStaticBroker})
		}
		s.Synonyms = append(s.Synonyms, api.ConfigValue{Key: def.Key, Value: standard, Source: api.SourceDefault})
		s.ConfigValue = s.Synonyms[0]
		out = append(out, s)
	}
	slices.SortFunc(out, func(x, y api.BrokerSetting) int { return strings.Compare(x.Key, y.Key) })
	return out, nil
}

// settingsOfAll are those that are set for all brokers.
func (b *Broker) settingsOfAll() []api.BrokerSetting {
	var out []api.BrokerSetting
	set := b.node.State().SetAt(api.NoBroker)
	for _, def := range metadata.BrokerSettings {
		if v, ok := set[def.Key]; ok {
			value := api.ConfigValue{Key: def.Key, Value: v, Source: api.SourceDynamicDefault}
			out = append(out, api.BrokerSetting{ConfigValue: value, Type: def.Type, Documentation: def.Doc, Synonyms: []api.ConfigValue{value}})
		}
	}
	return out
}

// fixedSettings cannot be altered.
func (b *Broker) fixedSettings() []api.BrokerSetting {
	var out []api.BrokerSetting
	add := func(key, value string, kind api.ConfigType, source api.ConfigSource, doc string) {
		v := api.ConfigValue{Key: key, Value: value, Source: source}
		out = append(out, api.BrokerSetting{ConfigValue: v, Type: kind, ReadOnly: true, Documentation: doc, Synonyms: []api.ConfigValue{v}})
	}
	static, number := api.SourceStaticBroker, strconv.Itoa
	add("advertised.listeners", b.kafkaListeners(), api.ConfigList, static, "Where Kafka clients are told to connect.")
	add("broker.id", number(int(b.cfg.ID)), api.ConfigInt, static, "The broker's number.")
	add("broker.rack", b.cfg.Rack, api.ConfigString, static, "The failure domain that replicas are spread over.")
	add("delete.topic.enable", "true", api.ConfigBool, api.SourceDefault, "Topics can be deleted.")
	add("log.dirs", b.cfg.DataDir, api.ConfigList, static, "Where the broker keeps its data.")
	add("node.id", number(int(b.cfg.ID)), api.ConfigInt, static, "The broker's number.")
	add("offsets.topic.num.partitions", number(int(b.cfg.OffsetsPartitions)), api.ConfigInt, static, "Of the internal topic of consumer groups, when it is created.")
	add("offsets.topic.replication.factor", number(int(b.defaultRF(b.cfg.OffsetsReplicationFactor))), api.ConfigInt, static, "Of the internal topic of consumer groups, when it is created.")
	add("socket.request.max.bytes", number(b.cfg.Memory.MaxMessageBytes+1<<20), api.ConfigInt, static, "The largest request. max.message.bytes of a topic may be up to 1 MiB less.")
	add("unclean.leader.election.enable", "false", api.ConfigBool, api.SourceDefault, "A replica that may lack acknowledged records never leads.")
	return out
}

// AlterBroker implements api.Configs.
func (b *Broker) AlterBroker(ctx context.Context, req api.AlterBrokerRequest) error {
	b.syncMetadata(ctx)
	s := b.node.State()
	if req.Broker != api.NoBroker && s.Brokers[req.Broker] == nil {
		return api.Errorf(api.CodeUnknownBroker, "there is no broker %d", req.Broker)
	}
	for _, key := range slices.Sorted(maps.Keys(req.Set)) {
		if slices.ContainsFunc(b.fixedSettings(), func(f api.BrokerSetting) bool { return f.Key == key }) {
			return api.Errorf(api.CodeInvalidRequest, "%s is fixed when a broker starts: it cannot be altered", key)
		}
	}
	cmd := &metadata.AlterBroker{Broker: req.Broker, Set: req.Set}
	for _, key := range slices.Sorted(maps.Keys(s.SetAt(req.Broker))) {
		if _, kept := req.Set[key]; slices.Contains(req.Unset, key) || req.Replace && !kept {
			cmd.Unset = append(cmd.Unset, key)
		}
	}
	if err := b.checkBrokerSettings(req.Set); err != nil {
		return err
	}
	if req.ValidateOnly {
		_, _, err := metadata.Apply(s, s.Version+1, cmd)
		return err
	}
	_, err := b.node.Propose(ctx, cmd)
	return b.apiError(err, nil)
}

// checkBrokerSettings refuses what the table does not know, and messages larger than any broker takes.
func (b *Broker) checkBrokerSettings(set map[string]string) error {
	if err := metadata.ValidateBrokerSettings(set); err != nil {
		return err
	}
	return b.checkMessageBytes("message.max.bytes", set)
}

func (b *Broker) checkMessageBytes(key string, set map[string]string) error {
	n, err := strconv.ParseInt(set[key], 10, 64)
	if limit := int64(b.cfg.Memory.MaxMessageBytes); err == nil && n > limit {
		return api.Errorf(api.CodeInvalidConfig, "%s=%d: this cluster takes messages of at most %d bytes", key, n, limit)
	}
	return nil
}

// describeSet is what logs say of what is set at run time.
func describeSet(set map[string]map[string]string) string {
	var out []string
	for _, scope := range slices.Sorted(maps.Keys(set)) {
		name := "broker " + scope
		if scope == "" {
			name = "all brokers"
		}
		out = append(out, fmt.Sprintf("%s: %v", name, set[scope]))
	}
	return strings.Join(out, "; ")
}
