package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name       string
		options    keyOptions
		line       string
		key, value string
		err        string // if not empty, the line is rejected with this
	}{
		{"no key", keyOptions{}, "a:b", "<nil>", "a:b", ""},
		{"no key, empty line", keyOptions{}, "", "<nil>", "", ""},
		{"separator", keyOptions{separator: ":"}, "a:b:c", "a", "b:c", ""},
		{"separator of several bytes", keyOptions{separator: "=>"}, "a=>b", "a", "b", ""},
		{"separator escaped", keyOptions{separator: `\t`}, "a\tb", "a", "b", ""},
		{"separator in hex", keyOptions{separator: `\x1f`}, "a\x1fb", "a", "b", ""},
		{"empty key", keyOptions{separator: ":"}, ":b", "", "b", ""},
		{"empty value", keyOptions{separator: ":"}, "a:", "a", "", ""},
		{"no separator", keyOptions{separator: ":"}, "ab", "", "", `no separator ":"`},
		{"regex with a group", keyOptions{regex: `^(\S+) `}, "10.0.0.1 - GET", "10.0.0.1", "10.0.0.1 - GET", ""},
		{"regex without", keyOptions{regex: `[0-9]+`}, "order 42 of 50", "42", "order 42 of 50", ""},
		{"regex does not match", keyOptions{regex: `[0-9]+`}, "none", "", "", "does not match"},
		{"regex group matches nothing", keyOptions{regex: `a|(b)`}, "a", "", "", "matched nothing"},
		{"json string", keyOptions{jsonField: "k"}, `{"k":"v","n":1}`, "v", `{"k":"v","n":1}`, ""},
		{"json escapes", keyOptions{jsonField: "k"}, `{"k":"\u00e9\n"}`, "\u00e9\n", `{"k":"\u00e9\n"}`, ""},
		{"json number keeps its digits", keyOptions{jsonField: "k"}, `{"k":12345678901234567890}`, "12345678901234567890", `{"k":12345678901234567890}`, ""},
		{"json boolean", keyOptions{jsonField: "k"}, `{"k":true}`, "true", `{"k":true}`, ""},
		{"json nested", keyOptions{jsonField: "a.b"}, `{"a":{"b":"v"}}`, "v", `{"a":{"b":"v"}}`, ""},
		{"json null", keyOptions{jsonField: "k"}, `{"k":null}`, "", "", "null cannot be a key"},
		{"json object as key", keyOptions{jsonField: "k"}, `{"k":{}}`, "", "", "cannot be a key"},
		{"json array as key", keyOptions{jsonField: "k"}, `{"k":[1]}`, "", "", "cannot be a key"},
		{"json field missing", keyOptions{jsonField: "a.b"}, `{"a":{"c":1}}`, "", "", `no field "a.b"`},
		{"json not an object", keyOptions{jsonField: "k"}, `[1]`, "", "", "not a JSON object"},
		{"json inner not an object", keyOptions{jsonField: "a.b"}, `{"a":1}`, "", "", `field "a" is not a JSON object`},
		{"json broken", keyOptions{jsonField: "k"}, `{"k":`, "", "", "not valid JSON"},
		{"json empty line", keyOptions{jsonField: "k"}, ``, "", "", "not valid JSON"},
		{"json field names are exact", keyOptions{jsonField: "K"}, `{"k":1}`, "", "", `no field "K"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			split, err := newSplitFunc(c.options)
			if err != nil {
				t.Fatal(err)
			}
			key, value, err := split([]byte(c.line))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Fatalf("error %v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			gotKey := string(key)
			if key == nil {
				gotKey = "<nil>"
			}
			if gotKey != c.key || string(value) != c.value {
				t.Errorf("key %q value %q, want %q %q", gotKey, value, c.key, c.value)
			}
		})
	}
}

// FuzzSplitJSON: whatever a line holds, it is split or rejected.
func FuzzSplitJSON(f *testing.F) {
	for _, seed := range []string{`{"a":{"b":"v"}}`, `{"a":1}`, `{`, ``, `null`, `{"a":{"b":null}}`, `"a"`, "{\"a\":{\"b\":\"\xff\"}}"} {
		f.Add([]byte(seed))
	}
	split, err := splitByJSON("a.b")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		key, value, err := split(line)
		if err == nil && (key == nil || !bytes.Equal(value, line)) {
			t.Errorf("%q: key %q, value %q", line, key, value)
		}
	})
}

func readLines(t *testing.T, r io.Reader, maxBytes int) (lines []string, errs []string) {
	t.Helper()
	lr, err := newLineReader(r, maxBytes)
	if err != nil {
		return nil, []string{err.Error()}
	}
	for {
		line, err := lr.next()
		switch {
		case err == io.EOF:
			return lines, errs
		case errors.Is(err, errLineTooLong):
			errs = append(errs, err.Error())
		case err != nil:
			return lines, append(errs, err.Error())
		default:
			lines = append(lines, string(line))
		}
	}
}

func zipped(t *testing.T, parts ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	for _, p := range parts {
		zw := gzip.NewWriter(&buf)
		if _, err := zw.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return buf.Bytes()
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", 200<<10)
	for _, c := range []struct {
		name  string
		input string
		max   int
		want  []string
		errs  int
	}{
		{"empty", "", 10, nil, 0},
		{"one", "a\n", 10, []string{"a"}, 0},
		{"without a newline at the end", "a\nb", 10, []string{"a", "b"}, 0},
		{"empty lines count", "\n\na\n", 10, []string{"", "", "a"}, 0},
		{"a carriage return is kept", "a\r\n", 10, []string{"a\r"}, 0},
		{"exactly as long as allowed", "12345\n", 5, []string{"12345"}, 0},
		{"too long, and the next one is read", "123456\nb\n", 5, []string{"b"}, 1},
		{"too long at the end", "a\n123456", 5, []string{"a"}, 1},
		{"longer than the buffer", long + "\nb\n", 1 << 20, []string{long, "b"}, 0},
		{"longer than the buffer and too long", long + "\nb\n", 100, []string{"b"}, 1},
		{"gzip", string(zipped(t, "a\nb\n")), 10, []string{"a", "b"}, 0},
		{"gzip of several members", string(zipped(t, "a\n", "b\n")), 10, []string{"a", "b"}, 0},
		{"gzip cut off", string(zipped(t, "a\nb\n")[:20]), 10, []string{"a", "b"}, 1},
		{"gzip in name only", "\x1f\x8bxx", 10, nil, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{"whole": strings.NewReader(c.input), "byte by byte": iotest.OneByteReader(strings.NewReader(c.input))} {
				lines, errs := readLines(t, r, c.max)
				if strings.Join(lines, "|") != strings.Join(c.want, "|") || len(lines) != len(c.want) || len(errs) != c.errs {
					t.Errorf("%s: %d lines, errors %q", name, len(lines), errs)
				}
			}
		})
	}
}

func TestLineNumbers(t *testing.T) {
	lr, err := newLineReader(strings.NewReader("a\ntoo long\nb\n"), 3)
	if err != nil {
		t.Fatal(err)
	}
	for i, tooLong := range []bool{false, true, false} {
		if _, err := lr.next(); errors.Is(err, errLineTooLong) != tooLong {
			t.Errorf("line %d: %v", i+1, err)
		}
		if lr.number != i+1 {
			t.Errorf("line %d has number %d", i+1, lr.number)
		}
	}
	broken, err := newLineReader(io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(errors.New("unplugged"))), 10)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := broken.next(); err != nil {
		t.Fatal(err)
	}
	if _, err := broken.next(); err == nil || !strings.Contains(err.Error(), "after line 1: unplugged") {
		t.Errorf("error %v", err)
	}
}

func TestParseFrom(t *testing.T) {
	for _, c := range []struct {
		s    string
		want startAt
	}{
		{"earliest", startAt{startEarliest, 0}},
		{"latest", startAt{startLatest, 0}},
		{"offset:42", startAt{startOffset, 42}},
		{"last:10", startAt{startLast, 10}},
		{"time:1700000000123", startAt{startTime, 1700000000123}},
		{"time:2023-11-14T22:13:20Z", startAt{startTime, 1700000000000}},
		{"time:2023-11-14T23:13:20.5+01:00", startAt{startTime, 1700000000500}},
		{"time:2023-11-14T22:13:20", startAt{startTime, 1700000000000}},
		{"time:2023-11-14", startAt{startTime, 1699920000000}},
	} {
		got, err := parseFrom(c.s)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.s, got, err, c.want)
		}
	}
	for _, s := range []string{"", "first", "offset", "offset:", "offset:x", "offset:-1", "last:-1", "time:", "time:-5", "time:2023-13-01", "earliest:1", "offset:9223372036854775808"} {
		if got, err := parseFrom(s); err == nil || exitCode(err) != exitUsage {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

func TestParseUntil(t *testing.T) {
	for s, want := range map[string]struct {
		end   bool
		count int64
	}{"end": {true, 0}, "forever": {false, 0}, "count:7": {false, 7}} {
		end, n, err := parseUntil(s)
		if err != nil || end != want.end || n != want.count {
			t.Errorf("%s: %t %d %v", s, end, n, err)
		}
	}
	for _, s := range []string{"", "now", "count", "count:", "count:0", "count:-1", "end:1"} {
		if _, _, err := parseUntil(s); exitCode(err) != exitUsage {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestByteSize(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "1000": 1000, "64KiB": 64 << 10, "1.5GB": 1500000000, "128MiB": 128 << 20, "2 kB": 2000} {
		var b byteSize
		if err := b.Set(s); err != nil || int64(b) != want {
			t.Errorf("%s: %d, %v; want %d", s, b, err, want)
		}
	}
	for n, want := range map[byteSize]string{0: "0", 1000: "1000", 128 << 20: "128MiB", 3 << 10: "3KiB", 1<<20 + 1: "1048577"} {
		if got := n.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(n), got, want)
		}
	}
	var b byteSize
	for _, s := range []string{"", "x", "-1", "9999999999GiB"} {
		if err := b.Set(s); err == nil {
			t.Errorf("%q: no error", s)
		}
	}
}
