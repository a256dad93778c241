package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/flotilla-log/flotilla/client"
)

// fakeSource gives records of one partition in polls of given sizes, and is finished after the last.
type fakeSource struct {
	polls    []int
	next     int64
	printeds int64
	fail     error
}

func (s *fakeSource) poll(context.Context) ([]*client.Record, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	n := s.polls[0]
	s.polls = s.polls[1:]
	var records []*client.Record
	for range n {
		records = append(records, &client.Record{Topic: "t", Offset: s.next, Value: fmt.Append(nil, s.next)})
		s.next++
	}
	return records, nil
}

func (s *fakeSource) finished(context.Context) (bool, error) {
	return len(s.polls) == 0 && s.fail == nil, nil
}

func (s *fakeSource) printed(_ context.Context, records []*client.Record) error {
	s.printeds += int64(len(records))
	return nil
}

func (s *fakeSource) close() error { return nil }

func TestPump(t *testing.T) {
	for _, c := range []struct {
		name  string
		polls []int
		limit int64
		want  string
	}{
		{"until the end", []int{2, 0, 1}, 0, "0 1 2 "},
		{"a limit within a poll", []int{2, 3}, 3, "0 1 2 "},
		{"a limit at the end of a poll does not poll again", []int{2, 3}, 2, "0 1 "},
		{"fewer than the limit", []int{2}, 5, "0 1 "},
		{"nothing", nil, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			w, err := (&app{stdout: &out, output: outputText}).newRecordWriter("%s ")
			if err != nil {
				t.Fatal(err)
			}
			source := &fakeSource{polls: c.polls}
			if err := pump(t.Context(), source, w, c.limit); err != nil {
				t.Fatal(err)
			}
			if out.String() != c.want || source.printeds != int64(len(c.want)/2) {
				t.Errorf("printed %q, told the source of %d; want %q", out.String(), source.printeds, c.want)
			}
		})
	}
}

func TestPumpFails(t *testing.T) {
	broken := errors.New("broken")
	w, err := (&app{stdout: failingWriter{broken}, output: outputJSON}).newRecordWriter("")
	if err != nil {
		t.Fatal(err)
	}
	source := &fakeSource{polls: []int{1}}
	if err := pump(t.Context(), source, w, 0); !errors.Is(err, broken) || source.printeds != 0 {
		t.Errorf("a broken output: %v, %d counted as printed", err, source.printeds)
	}
	if err := pump(t.Context(), &fakeSource{fail: broken}, w, 0); !errors.Is(err, broken) {
		t.Errorf("a broken source: %v", err)
	}
}

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestBeforeEnds(t *testing.T) {
	tp := client.TopicPartition{Topic: "t", Partition: 1}
	records := func() []*client.Record {
		return []*client.Record{{Topic: "t", Partition: 1, Offset: 4}, {Topic: "t", Partition: 1, Offset: 5}, {Topic: "t", Partition: 2, Offset: 0}}
	}
	if got := beforeEnds(records(), nil); len(got) != 3 {
		t.Errorf("no end in view: %d", len(got))
	}
	if got := beforeEnds(records(), map[client.TopicPartition]int64{tp: 5}); len(got) != 1 || got[0].Offset != 4 {
		t.Errorf("one end in view: %d", len(got))
	}
}

// TestGroupRemaining: a partition is done when this member or the group, as far as committed, has read it to the end.
func TestGroupRemaining(t *testing.T) {
	tp := func(p int32) client.TopicPartition { return client.TopicPartition{Topic: "t", Partition: p} }
	s := &groupSource{
		ends:      map[client.TopicPartition]int64{tp(0): 0, tp(1): 10, tp(2): 10, tp(3): 10},
		positions: map[client.TopicPartition]int64{tp(1): 10, tp(2): 9},
	}
	if got := s.remaining(nil); got != 2 {
		t.Errorf("by this member alone %d remain, want 2", got)
	}
	if got := s.remaining(map[client.TopicPartition]client.Commit{tp(2): {Offset: 10}, tp(3): {Offset: 3}}); got != 1 {
		t.Errorf("with commits %d remain, want 1", got)
	}
}
