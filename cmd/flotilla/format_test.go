package main

import (
	"bytes"
	"strings"
	"testing"
)

func sampleRecord() *consumed {
	return &consumed{
		topic: "orders", partition: 3, offset: 42, timestampMs: 1700000000123, key: []byte("ada"), value: []byte(`{"n":1}`),
		headers: []header{{"trace", []byte("t1")}, {"empty", nil}},
	}
}

func TestFormat(t *testing.T) {
	null := &consumed{topic: "t"}
	for _, c := range []struct {
		format string
		record *consumed
		want   string
	}{
		{`%s\n`, sampleRecord(), "{\"n\":1}\n"},
		{`%t/%p@%o %T %k=%s`, sampleRecord(), `orders/3@42 1700000000123 ada={"n":1}`},
		{`%K %S`, sampleRecord(), "3 7"},
		{`%h`, sampleRecord(), "trace=t1,empty=NULL"},
		{`%R%s`, sampleRecord(), "\x00\x00\x00\x07{\"n\":1}"},
		{`100%% \t|\r|\\|\x41|\0`, sampleRecord(), "100% \t|\r|\\|A|\x00"},
		{`[%k][%s] %K %S %R %h`, null, "[][] -1 -1 \xff\xff\xff\xff "},
		{``, sampleRecord(), ""},
		{`plain`, sampleRecord(), "plain"},
	} {
		f, err := compileFormat(c.format)
		if err != nil {
			t.Errorf("%s: %v", c.format, err)
			continue
		}
		if got := string(f.append(nil, c.record)); got != c.want {
			t.Errorf("%s: %q, want %q", c.format, got, c.want)
		}
	}
}

func TestFormatErrors(t *testing.T) {
	for format, says := range map[string]string{
		`%`: "single %", `%q`: "unknown %q", `%é`: "unknown %é", `a\`: "single backslash", `\q`: `unknown escape \q`,
		`\x1`: "two hexadecimal digits", `\xzz`: "two hexadecimal digits",
	} {
		if _, err := compileFormat(format); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want %q", format, err, says)
		}
	}
}

// FuzzFormat: any format string compiles or is refused, and formatting never fails.
func FuzzFormat(f *testing.F) {
	for _, seed := range []string{`%s\n`, `%`, `\x4`, `%%%k`, `\\`, "%\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, format string) {
		compiled, err := compileFormat(format)
		if err != nil {
			return
		}
		if got := compiled.append([]byte("kept"), sampleRecord()); !bytes.HasPrefix(got, []byte("kept")) {
			t.Errorf("%q overwrote what was there", format)
		}
	})
}

func TestRecordJSON(t *testing.T) {
	binary := sampleRecord()
	binary.key, binary.value, binary.headers = []byte{0xff}, nil, []header{{"h", []byte{0xfe}}}
	for _, c := range []struct {
		record *consumed
		want   string
	}{
		{sampleRecord(), `{"topic":"orders","partition":3,"offset":42,"timestamp":"2023-11-14T22:13:20.123Z","timestampMs":1700000000123,"key":"ada","value":"{\"n\":1}","headers":[{"key":"trace","value":"t1"},{"key":"empty","value":null}]}`},
		{binary, `{"topic":"orders","partition":3,"offset":42,"timestamp":"2023-11-14T22:13:20.123Z","timestampMs":1700000000123,"key":null,"keyBase64":"/w==","value":null,"headers":[{"key":"h","value":null,"valueBase64":"/g=="}]}`},
	} {
		got, err := appendJSON(nil, c.record)
		if err != nil || string(got) != c.want+"\n" {
			t.Errorf("%s, %v\nwant %s", got, err, c.want)
		}
	}
}
