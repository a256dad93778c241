package broker

import (
	"testing"

	"github.com/flotilla-log/flotilla/broker/metadata"
)

// TestRetainNothing: retention.ms=0 and retention.bytes=0 mean what they say, as in Kafka, and not the default.
func TestRetainNothing(t *testing.T) {
	s := toSettings((&metadata.Topic{Settings: map[string]string{"retention.ms": "0", "retention.bytes": "0"}}).Config())
	if s.RetentionAge != 1 || s.RetentionBytes != 1 {
		t.Errorf("retention of %d ns and %d bytes", s.RetentionAge, s.RetentionBytes)
	}
	s = toSettings((&metadata.Topic{Settings: map[string]string{"retention.ms": "-1"}}).Config())
	if s.RetentionAge >= 0 || s.RetentionBytes >= 0 {
		t.Errorf("retention of %d ns and %d bytes, without limits", s.RetentionAge, s.RetentionBytes)
	}
}
