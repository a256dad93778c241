package record

import (
	"encoding/binary"
	"runtime"
	"testing"
)

// TestDecodeBelievesNoCount: a batch of garbage that says that it holds a million records is refused without room having been made for them.
func TestDecodeBelievesNoCount(t *testing.T) {
	b := NewBuilder(BuilderOptions{})
	if err := b.Append(Record{Value: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	batch = append(batch, make([]byte, 8<<20)...)
	binary.BigEndian.PutUint32(batch[8:], uint32(len(batch)-12)) // the length
	binary.BigEndian.PutUint32(batch[posCount:], 1_000_000)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err = Decode(batch, 64<<20)
	runtime.ReadMemStats(&after)
	if err == nil {
		t.Fatal("garbage was decoded")
	}
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 4<<20 {
		t.Errorf("%d bytes were allocated", grown)
	}
}
