package layout

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/kafka/kafkafuzz"
)

// The walk ends exactly where kmsg ends, for requests of any contents in all versions; and what is cut is not taken for whole.
func TestLayouts(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for key, l := range layouts {
		for v := int16(0); v <= kmsg.RequestForKey(key).MaxVersion(); v++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(v)
			if (l.flexible >= 0 && v >= l.flexible) != req.IsFlexible() {
				t.Fatalf("%s version %d: flexible: %v", kmsg.NameForKey(key), v, req.IsFlexible())
			}
			for range 10 {
				kafkafuzz.Fill(req, r)
				checkWalk(t, req, l)
			}
		}
	}
}

func checkWalk(t *testing.T, req kmsg.Request, l layout) {
	t.Helper()
	body, key, v := req.AppendTo(nil), req.Key(), req.GetVersion()
	w := walker{b: body, version: v, flexible: req.IsFlexible(), left: len(body)}
	if w.fields(l.fields); w.bad || len(w.b) > 0 {
		t.Fatalf("%s version %d: the walk leaves %d of %d bytes, bad: %v: %+v", kmsg.NameForKey(key), v, len(w.b), len(body), w.bad, req)
	}
	for cut := 0; cut < len(body); cut += 1 + len(body)/50 {
		if err := Check(key, v, body[:cut]); !errors.Is(err, ErrMalformed) {
			t.Fatalf("%s version %d: %d of %d bytes are taken for the whole: %v", kmsg.NameForKey(key), v, cut, len(body), err)
		}
	}
}

// What is claimed and not there is found.
func TestClaims(t *testing.T) {
	many := binary.AppendUvarint(nil, 1<<32-1)
	for what, c := range map[string]struct {
		key, version int16
		body         []byte
	}{
		"tags":                {60, 0, append([]byte{0}, many...)},
		"tags in an array":    {42, 2, append([]byte{2, 2, 'g'}, many...)},
		"tags within a tag":   {1, 15, append(append(make([]byte, 24), 1, 1, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), many...)},
		"topics":              {0, 3, append([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0}, make([]byte, 2<<20)...)},
		"an array of strings": {42, 0, []byte{0x7f, 0xff, 0xff, 0xff}},
		"a string":            {10, 0, []byte{0x7f, 0xff, 'a'}},
	} {
		if err := Check(c.key, c.version, c.body); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzCheck: whatever the walk takes, kmsg reads, or refuses, within the time that a test has.
func FuzzCheck(f *testing.F) {
	r := rand.New(rand.NewPCG(5, 6))
	for key := range layouts {
		req := kmsg.RequestForKey(key)
		for _, v := range []int16{0, req.MaxVersion()} {
			req.SetVersion(v)
			kafkafuzz.Fill(req, r)
			f.Add(key, v, req.AppendTo(nil))
		}
	}
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		req := kmsg.RequestForKey(key)
		if req == nil || version < 0 || version > req.MaxVersion() || !Known(key) {
			return
		}
		req.SetVersion(version)
		taken := Check(key, version, body) == nil
		if taken && req.ReadFrom(body) == nil {
			if err := Check(key, version, req.AppendTo(nil)); err != nil && key != produceKey {
				t.Fatalf("what kmsg read of it is refused: %v", err)
			}
		}
	})
}
