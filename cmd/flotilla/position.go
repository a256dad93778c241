package main

import (
	"strconv"
	"strings"
	"time"
)

// startKind says how a starting point is given.
type startKind int8

const (
	startEarliest startKind = iota + 1
	startLatest
	startOffset
	startTime
	startLast
)

// startAt is where consume begins. value is an offset, Unix milliseconds, or a number of records.
type startAt struct {
	kind  startKind
	value int64
}

const fromHelp = "where to begin: earliest, latest, offset:N, time:T (RFC 3339 or Unix ms), or last:N (the last N records of each partition)"

// parseFrom reads the value of --from.
func parseFrom(s string) (startAt, error) {
	name, arg, hasArg := strings.Cut(s, ":")
	switch {
	case s == "earliest":
		return startAt{kind: startEarliest}, nil
	case s == "latest":
		return startAt{kind: startLatest}, nil
	case name == "offset" && hasArg:
		n, err := parseCount(arg)
		return startAt{kind: startOffset, value: n}, wrapOption("--from "+s, err)
	case name == "last" && hasArg:
		n, err := parseCount(arg)
		return startAt{kind: startLast, value: n}, wrapOption("--from "+s, err)
	case name == "time" && hasArg:
		ms, err := parseTime(arg)
		return startAt{kind: startTime, value: ms}, wrapOption("--from "+s, err)
	}
	return startAt{}, usageErrorf("--from %q: use earliest, latest, offset:N, time:T or last:N", s)
}

// parseUntil reads the value of --until; count is 0 unless it is count:N.
func parseUntil(s string) (untilEnd bool, count int64, err error) {
	name, arg, hasArg := strings.Cut(s, ":")
	switch {
	case s == "end":
		return true, 0, nil
	case s == "forever":
		return false, 0, nil
	case name == "count" && hasArg:
		n, err := parseCount(arg)
		if err == nil && n == 0 {
			err = usageErrorf("it must be at least 1")
		}
		return false, n, wrapOption("--until "+s, err)
	}
	return false, 0, usageErrorf("--until %q: use end, count:N or forever", s)
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, usageErrorf("%q is not a number", s)
	}
	if n < 0 {
		return 0, usageErrorf("it must not be negative")
	}
	return n, nil
}

// parseTime reads Unix milliseconds or RFC 3339; a time without zone is UTC, a date alone its midnight.
func parseTime(s string) (int64, error) {
	if ms, err := strconv.ParseInt(s, 10, 64); err == nil {
		if ms < 0 {
			return 0, usageErrorf("a time before 1970")
		}
		return ms, nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return max(0, t.UnixMilli()), nil
		}
	}
	return 0, usageErrorf("%q is neither RFC 3339 (2006-01-02T15:04:05Z) nor Unix milliseconds", s)
}

func wrapOption(option string, err error) error {
	if err == nil {
		return nil
	}
	return usageErrorf("%s: %w", option, err)
}
