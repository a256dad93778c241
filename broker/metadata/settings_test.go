package metadata

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

func TestDefaultSettings(t *testing.T) {
	got := (&Topic{}).Config()
	want := TopicConfig{CleanupPolicy: "delete", RetentionAge: 7 * 24 * time.Hour, RetentionBytes: -1, SegmentBytes: 128 << 20, SegmentAge: 7 * 24 * time.Hour,
		MaxMessageBytes: 1048588, Compression: "producer", FlushQuorum: true}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, s := range settings {
		if err := s.parse(&TopicConfig{}, s.def); err != nil {
			t.Errorf("default of %s: %v", s.key, err)
		}
	}
}

func TestSettingsInEffect(t *testing.T) {
	set := map[string]string{"retention.ms": "-1", "retention.bytes": "1000", "segment.bytes": "65536", "segment.ms": "1000", "max.message.bytes": "2048",
		"compression.type": "uncompressed", "flush": "os", "message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
	if err := ValidateSettings(set); err != nil {
		t.Fatal(err)
	}
	got := (&Topic{Settings: set}).Config()
	want := TopicConfig{CleanupPolicy: "delete", RetentionAge: -1, RetentionBytes: 1000, SegmentBytes: 65536, SegmentAge: time.Second,
		MaxMessageBytes: 2048, Compression: "none", LogAppendTime: true}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	// What another release wrote and this one refuses counts as not set.
	if c := (&Topic{Settings: map[string]string{"flush": "sometimes", "no.such": "1"}}).Config(); !c.FlushQuorum {
		t.Error("an unknown value of flush was taken for os")
	}
}

func TestBadSettings(t *testing.T) {
	for _, kv := range []string{"retention.ms=-2", "retention.ms=1h", "retention.ms=", "retention.bytes=-5", "segment.bytes=1", "segment.bytes=99999999999", "segment.ms=0",
		"max.message.bytes=1", "max.message.bytes=100000000", "compression.type=zip", "flush=always", "message.timestamp.type=createtime", "cleanup.policy=compact", "colour=red"} {
		key, value, _ := strings.Cut(kv, "=")
		if err := ValidateSettings(map[string]string{key: value}); err == nil || api.CodeOf(err) != api.CodeInvalidConfig || !strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", kv, err)
		}
	}
}

func TestDescribeSettings(t *testing.T) {
	list := DescribeSettings(map[string]string{"flush": "os"})
	if len(list) != len(settings) {
		t.Fatalf("%d settings described of %d", len(list), len(settings))
	}
	for i, s := range list {
		if s.Documentation == "" || s.IsDefault != (s.Key != "flush") || i > 0 && list[i-1].Key >= s.Key {
			t.Errorf("%+v", s)
		}
	}
	if flush := list[2]; !reflect.DeepEqual(flush.Value, "os") {
		t.Errorf("%+v", flush)
	}
}

func TestTopicNames(t *testing.T) {
	for _, name := range []string{"a", "A.b_c-9", "...", "__consumer_offsets", strings.Repeat("x", 249)} {
		if err := ValidateTopicName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a b", "a/b", "ä", "a\x00", strings.Repeat("x", 250)} {
		if err := ValidateTopicName(name); api.CodeOf(err) != api.CodeInvalidTopic || err == nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}
