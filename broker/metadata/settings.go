package metadata

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/broker/api"
)

// TopicConfig is a topic's settings in effect, parsed. Convert it to partition.Settings.
type TopicConfig struct {
	CleanupPolicy   string        // "delete"
	RetentionAge    time.Duration // -1: without limit
	RetentionBytes  int64         // per partition; -1: without limit
	SegmentBytes    int64
	SegmentAge      time.Duration
	MaxMessageBytes int    // of one batch as stored
	Compression     string // "producer", "none" ("uncompressed" is the same), "gzip", "snappy", "lz4", "zstd"
	FlushQuorum     bool   // flush=quorum; otherwise flush=os
	LogAppendTime   bool   // message.timestamp.type=LogAppendTime
}

// setting is one line of the table of topic settings. parse checks a value and stores it.
type setting struct {
	key, def, doc string
	parse         func(c *TopicConfig, value string) error
}

// settings is the table, by key. Keys, meanings and, where not said otherwise, defaults are Kafka's.
var settings = []setting{
	{"cleanup.policy", "delete",
		"What happens to old records. Only delete is known: whole segments go when retention.ms or retention.bytes says so.",
		oneOf(func(c *TopicConfig) *string { return &c.CleanupPolicy }, "delete")},
	{"compression.type", "producer",
		"How batches are stored: producer keeps what the producer chose; none, gzip, snappy, lz4 or zstd recompresses on the leader.",
		parseCompression},
	{"flush", "quorum",
		"When an append is acknowledged: quorum, when a quorum of replicas has it on disk; os, when a quorum has it in the page cache: a power failure may then lose records. (Flotilla's own.)",
		choice(func(c *TopicConfig) *bool { return &c.FlushQuorum }, "quorum", "os")},
	{"max.message.bytes", "1048588",
		"The largest record batch, in bytes as stored. From 1 KiB to 32 MiB.",
		parseMaxMessage},
	{"message.timestamp.type", "CreateTime",
		"CreateTime keeps the producer's timestamps; LogAppendTime replaces them with the leader's clock.",
		choice(func(c *TopicConfig) *bool { return &c.LogAppendTime }, "LogAppendTime", "CreateTime")},
	{"retention.bytes", "-1",
		"The size of a partition above which its oldest segments are deleted, in bytes. -1: no limit.",
		number(-1, math.MaxInt64, func(c *TopicConfig, n int64) { c.RetentionBytes = n })},
	{"retention.ms", "604800000",
		"The age of a segment's newest record above which it is deleted, in milliseconds (default 7 days). -1: no limit.",
		number(-1, maxMs, func(c *TopicConfig, n int64) { c.RetentionAge = milliseconds(n) })},
	{"segment.bytes", "134217728",
		"The size at which a new segment begins, in bytes (default 128 MiB; Kafka's is 1 GiB). Retention works on whole segments. From 64 KiB to 2 GiB.",
		number(64<<10, 2<<30, func(c *TopicConfig, n int64) { c.SegmentBytes = n })},
	{"segment.ms", "604800000",
		"The age at which a new segment begins even if the last is not full, in milliseconds (default 7 days).",
		number(1, maxMs, func(c *TopicConfig, n int64) { c.SegmentAge = milliseconds(n) })},
}

// The bounds of max.message.bytes.
const (
	minMessageBytes = 1 << 10
	maxMessageBytes = 32 << 20
)

// maxMs is the longest time in milliseconds that a time.Duration holds.
const maxMs = math.MaxInt64 / int64(time.Millisecond)

func milliseconds(n int64) time.Duration {
	if n < 0 {
		return -1
	}
	return time.Duration(n) * time.Millisecond
}

func number(least, most int64, store func(*TopicConfig, int64)) func(*TopicConfig, string) error {
	return func(c *TopicConfig, value string) error {
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < least || n > most {
			return fmt.Errorf("it must be a whole number from %d to %d", least, most)
		}
		store(c, n)
		return nil
	}
}

func oneOf(field func(*TopicConfig) *string, values ...string) func(*TopicConfig, string) error {
	return func(c *TopicConfig, value string) error {
		if !slices.Contains(values, value) {
			return fmt.Errorf("it must be one of: %s", strings.Join(values, ", "))
		}
		*field(c) = value
		return nil
	}
}

// choice is a setting with two values, the first of which is true.
func choice(field func(*TopicConfig) *bool, yes, no string) func(*TopicConfig, string) error {
	return func(c *TopicConfig, value string) error {
		if value != yes && value != no {
			return fmt.Errorf("it must be %s or %s", yes, no)
		}
		*field(c) = value == yes
		return nil
	}
}

func parseCompression(c *TopicConfig, value string) error {
	check := oneOf(func(c *TopicConfig) *string { return &c.Compression }, "producer", "none", "uncompressed", "gzip", "snappy", "lz4", "zstd")
	if err := check(c, value); err != nil {
		return err
	}
	if value == "uncompressed" { // Kafka's word for it in topic settings
		c.Compression = "none"
	}
	return nil
}

func parseMaxMessage(c *TopicConfig, value string) error {
	return number(minMessageBytes, maxMessageBytes, func(c *TopicConfig, n int64) { c.MaxMessageBytes = int(n) })(c, value)
}

// Config returns the topic's settings in effect. Values that this release does not accept (written by another one) count as not set.
func (t *Topic) Config() TopicConfig {
	var c TopicConfig
	for _, s := range settings {
		if value, ok := t.Settings[s.key]; !ok || s.parse(&c, value) != nil {
			_ = s.parse(&c, s.def) // a test makes sure that defaults parse
		}
	}
	return c
}

// DescribeSettings lists all settings in effect, by key, with their documentation.
func DescribeSettings(set map[string]string) []api.TopicSetting {
	out := make([]api.TopicSetting, len(settings))
	for i, s := range settings {
		value, ok := set[s.key]
		if !ok {
			value = s.def
		}
		out[i] = api.TopicSetting{Key: s.key, Value: value, IsDefault: !ok, Documentation: s.doc}
	}
	return out
}

// ValidateSettings returns CodeInvalidConfig naming the first (by key) unknown key or bad value.
func ValidateSettings(set map[string]string) error {
	for _, key := range slices.Sorted(maps.Keys(set)) {
		i := slices.IndexFunc(settings, func(s setting) bool { return s.key == key })
		if i < 0 {
			return unknownSetting(key)
		}
		if err := settings[i].parse(&TopicConfig{}, set[key]); err != nil {
			return api.Errorf(api.CodeInvalidConfig, "%s=%q: %v", key, set[key], err)
		}
	}
	return nil
}

func unknownSetting(key string) error {
	keys := make([]string, len(settings))
	for i, s := range settings {
		keys[i] = s.key
	}
	return api.Errorf(api.CodeInvalidConfig, "there is no topic setting %q; known are: %s", key, strings.Join(keys, ", "))
}

// maxTopicName is Kafka's limit: a directory name has room for it with a partition number.
const maxTopicName = 249

// ValidateTopicName checks a name as Kafka does. CodeInvalidTopic.
func ValidateTopicName(name string) error {
	switch {
	case name == "":
		return api.Errorf(api.CodeInvalidTopic, "the topic name is empty")
	case name == "." || name == "..":
		return api.Errorf(api.CodeInvalidTopic, "the topic name %q is not allowed", name)
	case len(name) > maxTopicName:
		return api.Errorf(api.CodeInvalidTopic, "the topic name has %d characters, at most %d are allowed", len(name), maxTopicName)
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r)) {
			return api.Errorf(api.CodeInvalidTopic, "the topic name %q contains %q; letters a-z and A-Z, digits, '.', '_' and '-' are allowed", name, r)
		}
	}
	return nil
}
