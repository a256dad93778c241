package raftlog

import (
	"bytes"
	"hash/crc32"
	"testing"

	"github.com/hashicorp/raft"
)

func TestPayloadSumIsThatOfWhatWasWritten(t *testing.T) {
	opts := testOptions(newMem(t))
	opts.TailCacheBytes = 1 << 20
	log := mustOpen(t, opts)
	defer log.Close()
	large, small := bytes.Repeat([]byte{0x90, 1, 2}, sumMin), []byte{0x90}
	if err := log.StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: large, Extensions: []byte("ext")}, {Index: 2, Term: 1, Data: small}}); err != nil {
		t.Fatal(err)
	}
	if sum, known := log.PayloadSum(1, large); !known || sum != crc32.Checksum(large, castagnoli) {
		t.Errorf("got %08x, %v", sum, known)
	}
	for name, ask := range map[string]struct {
		index   uint64
		payload []byte
	}{"another slice": {1, bytes.Clone(large)}, "a part": {1, large[:sumMin]}, "a small one": {2, small}, "none such": {3, large}, "empty": {1, nil}} {
		if _, known := log.PayloadSum(ask.index, ask.payload); known {
			t.Errorf("%s: known", name)
		}
	}
	log.mu.Lock()
	log.tail.clear() // so that it comes from the file, whose frame has to verify
	log.mu.Unlock()
	var got raft.Log
	if err := log.GetLog(1, &got); err != nil || !bytes.Equal(got.Data, large) || string(got.Extensions) != "ext" {
		t.Errorf("%v, %d bytes", err, len(got.Data))
	}
}
