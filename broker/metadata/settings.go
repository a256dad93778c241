package metadata

import (
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
	Compression     string // "producer", "none", "gzip", "snappy", "lz4", "zstd"
	FlushQuorum     bool   // flush=quorum; otherwise flush=os
	LogAppendTime   bool   // message.timestamp.type=LogAppendTime
}

// Config returns the topic's settings in effect.
func (t *Topic) Config() TopicConfig { return TopicConfig{} }

// DescribeSettings lists all settings in effect, by key, with their documentation.
func DescribeSettings(set map[string]string) []api.TopicSetting { return nil }

// ValidateSettings returns CodeInvalidConfig naming the first (by key) unknown key or bad value.
func ValidateSettings(set map[string]string) error { return nil }

// ValidateTopicName checks a name as Kafka does. CodeInvalidTopic.
func ValidateTopicName(name string) error { return nil }
