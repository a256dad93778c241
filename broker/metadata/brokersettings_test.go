package metadata

import (
	"slices"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

func TestBrokerSettingsTable(t *testing.T) {
	for topic, key := range inherited {
		s, ok := findBrokerSetting(key)
		if !ok || s.Topic != topic || TopicSettingDefault(topic) == "" || s.parse(TopicSettingDefault(topic)) != nil {
			t.Errorf("%s, the default of %s: %+v", key, topic, s)
		}
	}
	if !slices.IsSortedFunc(BrokerSettings, func(a, b BrokerSettingDef) int {
		if a.Key < b.Key {
			return -1
		}
		return 1
	}) {
		t.Error("the table is not in order")
	}
	for _, s := range BrokerSettings {
		if s.Doc == "" || s.Type == 0 || s.parse("nonsense value") == nil && s.Type != api.ConfigString {
			t.Errorf("%+v", s)
		}
	}
}

func TestInheritedSettings(t *testing.T) {
	m := newMachine(t)
	m.must(&RegisterBroker{Broker: Broker{ID: 1, Incarnation: "x"}})
	m.must(&AlterBroker{Broker: api.NoBroker, Set: map[string]string{"log.retention.ms": "5000", "log.segment.bytes": "100000", "num.partitions": "4"}})
	m.must(&AlterBroker{Broker: 1, Set: map[string]string{"log.retention.ms": "6000"}})
	topic := &Topic{Settings: map[string]string{"segment.bytes": "200000", "retention.bytes": "unreadable here"}}
	s := m.state.Load()
	if c := s.TopicConfig(topic, 1); c.RetentionAge != 6*time.Second || c.SegmentBytes != 200000 || c.RetentionBytes != -1 {
		t.Errorf("on broker 1: %+v", c)
	}
	if c := s.TopicConfig(topic, 2); c.RetentionAge != 5*time.Second {
		t.Errorf("on broker 2: %+v", c)
	}
	if v, ok := s.BrokerValue(2, DefaultPartitions); !ok || v != "4" {
		t.Errorf("num.partitions: %q, %v", v, ok)
	}
	if _, err := m.apply("", &AlterBroker{Broker: 7, Set: map[string]string{"num.partitions": "1"}}); api.CodeOf(err) != api.CodeUnknownBroker {
		t.Errorf("a broker that does not exist: %v", err)
	}
	m.must(&RemoveBroker{ID: 1})
	if left := m.state.Load().SetAt(1); len(left) > 0 {
		t.Errorf("of a broker that was removed: %v", left)
	}
	m.must(&AlterBroker{Broker: api.NoBroker, Unset: []string{"log.retention.ms", "log.segment.bytes", "num.partitions"}})
	if left := m.state.Load().BrokerSettings; len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
