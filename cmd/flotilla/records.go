package main

import "github.com/flotilla-log/flotilla/proto/record"

// decodeLimitBytes bounds what one record batch may become when it is decompressed.
const decodeLimitBytes = 256 << 20

func fromRecord(topic string, partition int32, r *record.Record) *consumed {
	c := &consumed{
		topic: topic, partition: partition, offset: int64(r.Offset), timestampMs: r.Timestamp, key: r.Key, value: r.Value,
	}
	for _, h := range r.Headers {
		c.headers = append(c.headers, header{key: string(h.Key), value: h.Value})
	}
	return c
}
