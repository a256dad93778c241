package main

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"time"

	"github.com/klauspost/compress/gzip"
)

//go:embed data/flights-20k.ndjson.gz
var flights []byte

// event is one flight: what is produced, and what is expected to come back.
type event struct {
	key    string // the airport of origin
	line   string // the whole JSON object, the record's value
	timeMs int64  // of departure, the record's timestamp
}

// loadEvents reads the events in their order, which is that of time.
func loadEvents() ([]event, error) {
	zr, err := gzip.NewReader(bytes.NewReader(flights))
	if err != nil {
		return nil, err
	}
	var events []event
	for sc := bufio.NewScanner(zr); sc.Scan(); {
		e, err := parseEvent(sc.Text())
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
	if len(events) == 0 {
		return nil, fmt.Errorf("no events in the data file")
	}
	return events, nil
}

func parseEvent(line string) (event, error) {
	var f struct{ Date, Origin string }
	if err := json.Unmarshal([]byte(line), &f); err != nil {
		return event{}, err
	}
	t, err := time.Parse("2006/01/02 15:04", f.Date)
	if err != nil {
		return event{}, err
	}
	return event{key: f.Origin, line: line, timeMs: t.UnixMilli()}, nil
}
