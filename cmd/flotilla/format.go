package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// consumed is a record as consume prints it. A nil key or value is null.
type consumed struct {
	topic       string
	partition   int32
	offset      int64
	timestampMs int64
	key, value  []byte
	headers     []header
}

type header struct {
	key   string
	value []byte
}

const formatHelp = `  %s  value            %S  length of the value (-1: null)   %R  that length, 4 bytes big-endian
  %k  key              %K  length of the key (-1: null)
  %t  topic            %p  partition        %o  offset
  %T  timestamp, Unix milliseconds          %h  headers as name=value,...
  %%  a percent sign   \n \r \t \\ \xHH     a newline, ..., the byte HH`

// recordFormat is a compiled format string: appenders called in order.
type recordFormat []func(dst []byte, r *consumed) []byte

// compileFormat understands kcat's format strings.
func compileFormat(format string) (recordFormat, error) {
	var f recordFormat
	for format != "" {
		i := strings.IndexByte(format, '%')
		if i < 0 {
			i = len(format)
		}
		if i > 0 {
			text, err := unescape(format[:i])
			if err != nil {
				return nil, err
			}
			f = append(f, literal(text))
			format = format[i:]
			continue
		}
		if len(format) < 2 {
			return nil, errors.New(`a single % at the end (write %% for a percent sign)`)
		}
		verb, ok := formatVerbs[format[1]]
		if !ok {
			r, _ := utf8.DecodeRuneInString(format[1:])
			return nil, fmt.Errorf("unknown %%%c; known are:\n%s", r, formatHelp)
		}
		f = append(f, verb)
		format = format[2:]
	}
	return f, nil
}

// append formats one record.
func (f recordFormat) append(dst []byte, r *consumed) []byte {
	for _, part := range f {
		dst = part(dst, r)
	}
	return dst
}

func literal(text string) func([]byte, *consumed) []byte {
	return func(dst []byte, _ *consumed) []byte { return append(dst, text...) }
}

var formatVerbs = map[byte]func(dst []byte, r *consumed) []byte{
	'%': literal("%"),
	's': func(dst []byte, r *consumed) []byte { return append(dst, r.value...) },
	'S': func(dst []byte, r *consumed) []byte { return strconv.AppendInt(dst, lengthOf(r.value), 10) },
	'R': func(dst []byte, r *consumed) []byte {
		return binary.BigEndian.AppendUint32(dst, uint32(int32(lengthOf(r.value))))
	},
	'k': func(dst []byte, r *consumed) []byte { return append(dst, r.key...) },
	'K': func(dst []byte, r *consumed) []byte { return strconv.AppendInt(dst, lengthOf(r.key), 10) },
	't': func(dst []byte, r *consumed) []byte { return append(dst, r.topic...) },
	'p': func(dst []byte, r *consumed) []byte { return strconv.AppendInt(dst, int64(r.partition), 10) },
	'o': func(dst []byte, r *consumed) []byte { return strconv.AppendInt(dst, r.offset, 10) },
	'T': func(dst []byte, r *consumed) []byte { return strconv.AppendInt(dst, r.timestampMs, 10) },
	'h': appendHeaders,
}

// lengthOf is -1 for null, as in Kafka's encoding.
func lengthOf(b []byte) int64 {
	if b == nil {
		return -1
	}
	return int64(len(b))
}

func appendHeaders(dst []byte, r *consumed) []byte {
	for i, h := range r.headers {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(dst, h.key...), '=')
		if h.value == nil {
			dst = append(dst, "NULL"...)
		}
		dst = append(dst, h.value...)
	}
	return dst
}

// unescape replaces backslash escapes.
func unescape(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		c, used, err := escape(s[i+1:])
		if err != nil {
			return "", err
		}
		b.WriteByte(c)
		i += used
	}
	return b.String(), nil
}

var simpleEscapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '\\': '\\', '0': 0}

// escape decodes what follows a backslash and says how many bytes it used.
func escape(s string) (c byte, used int, err error) {
	if s == "" {
		return 0, 0, errors.New(`a single backslash at the end (write \\ for a backslash)`)
	}
	if c, ok := simpleEscapes[s[0]]; ok {
		return c, 1, nil
	}
	if s[0] != 'x' {
		r, _ := utf8.DecodeRuneInString(s)
		return 0, 0, fmt.Errorf(`unknown escape \%c: known are \n, \r, \t, \0, \\ and \xHH`, r)
	}
	if len(s) < 3 {
		return 0, 0, errors.New(`\x needs two hexadecimal digits`)
	}
	n, err := strconv.ParseUint(s[1:3], 16, 8)
	if err != nil {
		return 0, 0, fmt.Errorf(`\x%s: two hexadecimal digits are needed`, s[1:3])
	}
	return byte(n), 3, nil
}

// consumedJSON is a record in JSON. Keys and values that are not UTF-8 are given in base64 under another name.
type consumedJSON struct {
	Topic       string       `json:"topic"`
	Partition   int32        `json:"partition"`
	Offset      int64        `json:"offset"`
	Timestamp   string       `json:"timestamp"`
	TimestampMs int64        `json:"timestampMs"`
	Key         *string      `json:"key"`
	KeyBase64   []byte       `json:"keyBase64,omitempty"`
	Value       *string      `json:"value"`
	ValueBase64 []byte       `json:"valueBase64,omitempty"`
	Headers     []headerJSON `json:"headers,omitempty"`
}

type headerJSON struct {
	Key         string  `json:"key"`
	Value       *string `json:"value"`
	ValueBase64 []byte  `json:"valueBase64,omitempty"`
}

func (r *consumed) toJSON() consumedJSON {
	j := consumedJSON{
		Topic: r.topic, Partition: r.partition, Offset: r.offset,
		Timestamp: formatMillis(r.timestampMs), TimestampMs: r.timestampMs,
	}
	j.Key, j.KeyBase64 = textOrBase64(r.key)
	j.Value, j.ValueBase64 = textOrBase64(r.value)
	for _, h := range r.headers {
		hj := headerJSON{Key: h.key}
		hj.Value, hj.ValueBase64 = textOrBase64(h.value)
		j.Headers = append(j.Headers, hj)
	}
	return j
}

func textOrBase64(b []byte) (*string, []byte) {
	if b == nil {
		return nil, nil
	}
	if !utf8.Valid(b) {
		return nil, b
	}
	s := string(b)
	return &s, nil
}
