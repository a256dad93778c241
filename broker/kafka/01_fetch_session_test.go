package kafka

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/api"
)

// sessionRequest is a fetch in a session; each of the partitions is "partition@offset", those to be forgotten "-partition".
func sessionRequest(version int16, id, epoch int32, partitions ...string) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version, req.MinBytes, req.MaxBytes, req.SessionID, req.SessionEpoch = version, 1, 1<<20, id, epoch
	topic := kmsg.NewFetchRequestTopic()
	forgotten := kmsg.NewFetchRequestForgottenTopic()
	topic.Topic, topic.TopicID, forgotten.Topic, forgotten.TopicID = "orders", topicID, "orders", topicID
	for _, s := range partitions {
		p := kmsg.NewFetchRequestTopicPartition()
		p.PartitionMaxBytes = 1 << 20
		if rest, ok := strings.CutPrefix(s, "-"); ok {
			_, _ = fmt.Sscanf(rest, "%d", &p.Partition)
			forgotten.Partitions = append(forgotten.Partitions, p.Partition)
			continue
		}
		_, _ = fmt.Sscanf(s, "%d@%d", &p.Partition, &p.FetchOffset)
		topic.Partitions = append(topic.Partitions, p)
	}
	if len(topic.Partitions) > 0 {
		req.Topics = append(req.Topics, topic)
	}
	if len(forgotten.Partitions) > 0 {
		req.ForgottenTopics = append(req.ForgottenTopics, forgotten)
	}
	return req
}

// told is what a response says of partitions, in its order: "partition" or "partition!error", with "+" if there are records.
func told(resp *kmsg.FetchResponse) []string {
	out := []string{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			s := fmt.Sprint(p.Partition)
			if p.ErrorCode != 0 {
				s += fmt.Sprintf("!%d", p.ErrorCode)
			}
			if len(p.RecordBatches) > 0 {
				s += "+"
			}
			out = append(out, s)
		}
	}
	return out
}

func appendTo(t *testing.T, f *fakeBroker, partition int32, value string) {
	t.Helper()
	if _, err := f.Append(context.Background(), api.AppendRequest{TopicPartition: api.TopicPartition{Topic: "orders", Partition: partition}, Batch: batch(t, value)}); err != nil {
		t.Fatal(err)
	}
}

// The life of a session: a full fetch, incremental ones that tell only what is new, changes of position, a partition forgotten, the end.
func TestFetchSession(t *testing.T) {
	for _, version := range []int16{7, 11, 12, 13, 18} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			f := newFake()
			appendTo(t, f, 1, "a")
			s, addr := serve(t, f, Options{})
			w := dial(t, addr)
			var id, epoch int32
			step := func(want string, partitions ...string) {
				t.Helper()
				resp := ask[*kmsg.FetchResponse](w, sessionRequest(version, id, epoch, partitions...))
				if got := strings.Join(told(resp), " "); got != want || resp.ErrorCode != 0 {
					t.Fatalf("epoch %d: error %d, told of %q, want %q", epoch, resp.ErrorCode, got, want)
				}
				id, epoch = resp.SessionID, epoch+1
			}
			step("0 1+", "0@0", "1@0")
			if id == 0 {
				t.Fatal("no session was made")
			}
			step("", "1@1") // the client goes on after the record; there is nothing new
			step("")
			appendTo(t, f, 0, "b")
			step("0+")
			step("0+") // as long as it asks for the same offset
			step("", "0@1")
			f.mu.Lock()
			f.epochs[0]++
			f.mu.Unlock()
			step("") // the leader's epoch is the client's business only if it names one
			step("", "-0")
			appendTo(t, f, 0, "c")
			appendTo(t, f, 1, "d")
			step("1+")
			step("", "-1")
			if n, bytes := s.sessions.size(); id != 0 || n != 0 || bytes != 0 {
				t.Errorf("a session without partitions goes on: ID %d, %d sessions of %d bytes", id, n, bytes)
			}
		})
	}
}

func TestFetchSessionRefusals(t *testing.T) {
	f := newFake()
	s, addr := serve(t, f, Options{})
	w := dial(t, addr)
	fetch := func(version int16, id, epoch int32, partitions ...string) *kmsg.FetchResponse {
		t.Helper()
		return ask[*kmsg.FetchResponse](w, sessionRequest(version, id, epoch, partitions...))
	}
	id := fetch(12, 0, 0, "0@0").SessionID
	for _, c := range []struct {
		what      string
		version   int16
		id, epoch int32
		want      int16
	}{
		{"no session", 12, 0, 1, errFetchSessionIDNotFound},
		{"an unknown session", 12, id ^ 1, 1, errFetchSessionIDNotFound},
		{"an epoch ahead", 12, id, 2, errInvalidFetchSessionEpoch},
		{"an epoch that cannot be", 12, id, -2, errInvalidFetchSessionEpoch},
		{"topic IDs in a session of names", 13, id, 1, errFetchSessionTopicID},
		{"what is right", 12, id, 1, errNone},
		{"the same again", 12, id, 1, errInvalidFetchSessionEpoch},
	} {
		resp := fetch(c.version, c.id, c.epoch)
		if resp.ErrorCode != c.want || c.want != errNone && (resp.SessionID != 0 || len(resp.Topics) > 0) {
			t.Errorf("%s: error %d, want %d; session %d, %d topics", c.what, resp.ErrorCode, c.want, resp.SessionID, len(resp.Topics))
		}
	}
	// A full fetch ends the session that it names, and makes another, or none.
	next := fetch(13, id, 0, "0@0").SessionID
	if next == 0 || next == id {
		t.Errorf("session %d follows %d", next, id)
	}
	if got := fetch(12, id, 2).ErrorCode; got != errFetchSessionIDNotFound {
		t.Errorf("the old session: error %d", got)
	}
	if got := fetch(12, next, 1).ErrorCode; got != errFetchSessionTopicID {
		t.Errorf("names in a session of topic IDs: error %d", got)
	}
	got := fetch(13, next, -1, "0@0")
	if n, _ := s.sessions.size(); got.SessionID != 0 || got.ErrorCode != 0 || n != 0 {
		t.Errorf("the last fetch: session %d, error %d, %d sessions are left", got.SessionID, got.ErrorCode, n)
	}
	if got := fetch(13, 0, 0); got.SessionID != 0 || got.ErrorCode != 0 {
		t.Errorf("a session of nothing: ID %d, error %d", got.SessionID, got.ErrorCode)
	}
}

// A topic whose ID is not known, that becomes known, is deleted, and made anew under the same name.
func TestFetchSessionTopicIDs(t *testing.T) {
	f := newFake()
	f.id = [16]byte{}
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	setID := func(id [16]byte) { f.mu.Lock(); f.id = id; f.mu.Unlock() }
	var id, epoch int32
	step := func(what, want string, partitions ...string) {
		t.Helper()
		resp := ask[*kmsg.FetchResponse](w, sessionRequest(13, id, epoch, partitions...))
		if got := strings.Join(told(resp), " "); got != want || resp.ErrorCode != 0 {
			t.Fatalf("%s: error %d, told of %q, want %q", what, resp.ErrorCode, got, want)
		}
		id, epoch = resp.SessionID, epoch+1
	}
	unknownID := fmt.Sprintf("0!%d", errUnknownTopicID)
	step("not known", unknownID, "0@0")
	step("still not known", unknownID)
	f.mu.Lock()
	if f.syncs != 1 {
		t.Errorf("the metadata was asked for %d times", f.syncs)
	}
	f.mu.Unlock()
	setID(topicID)
	step("known", "0")
	step("nothing new", "")
	setID([16]byte{})
	step("deleted", fmt.Sprintf("0!%d", errUnknownTopicOrPartition))
	setID([16]byte{7})
	step("made anew", fmt.Sprintf("0!%d", errInconsistentTopicID))
	setID(topicID)
	step("known again", "0")
}

// Errors are told each time, and the state after them too.
func TestFetchSessionErrors(t *testing.T) {
	f := newFake()
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	first := ask[*kmsg.FetchResponse](w, sessionRequest(12, 0, 0, "0@0", "5@0"))
	missing := fmt.Sprintf("5!%d", errUnknownTopicOrPartition)
	if got := told(first); !slices.Equal(got, []string{"0", missing}) {
		t.Fatalf("%q", got)
	}
	if got := told(ask[*kmsg.FetchResponse](w, sessionRequest(12, first.SessionID, 1))); !slices.Equal(got, []string{missing}) {
		t.Fatalf("%q", got)
	}
	fenced := sessionRequest(12, first.SessionID, 2, "0@0", "-5")
	fenced.Topics[0].Partitions[0].CurrentLeaderEpoch = 2
	if got := told(ask[*kmsg.FetchResponse](w, fenced)); !slices.Equal(got, []string{fmt.Sprintf("0!%d", errFencedLeaderEpoch)}) {
		t.Fatalf("%q", got)
	}
	right := sessionRequest(12, first.SessionID, 3, "0@0")
	right.Topics[0].Partitions[0].CurrentLeaderEpoch = 3
	if got := told(ask[*kmsg.FetchResponse](w, right)); !slices.Equal(got, []string{"0"}) {
		t.Fatalf("after the error: %q", got)
	}
}

// Where a response has not room for all partitions, those that gave data wait for the others.
func TestFetchSessionIsFair(t *testing.T) {
	f := newFake()
	appendTo(t, f, 0, strings.Repeat("a", 600))
	appendTo(t, f, 1, strings.Repeat("b", 600))
	_, addr := serve(t, f, Options{})
	w := dial(t, addr)
	var got []string
	id := int32(0)
	for epoch := range int32(4) {
		req := sessionRequest(12, id, epoch)
		if epoch == 0 {
			req = sessionRequest(12, 0, 0, "0@0", "1@0")
		}
		req.MaxBytes = 1
		resp := ask[*kmsg.FetchResponse](w, req)
		for _, s := range told(resp) {
			if strings.HasSuffix(s, "+") {
				got = append(got, s)
			}
		}
		id = resp.SessionID
	}
	// The full fetch is in the request's order and moves nothing.
	if want := []string{"0+", "0+", "1+", "0+"}; !slices.Equal(got, want) {
		t.Errorf("data came from %q, want %q", got, want)
	}
}

// Two requests with the same epoch: one of them is answered. A request that comes while the one before still waits makes that one's answer void.
func TestFetchSessionOvertaken(t *testing.T) {
	c := newSessionCache(10, 1<<20)
	first := c.begin(sessionRequest(12, 0, 0, "0@0"))
	var out fetchReply
	id, _ := first.end([]fetchedPartition{{}}, &out)
	second := c.begin(sessionRequest(12, id, 1))
	if again := c.begin(sessionRequest(12, id, 1)); again.code != errInvalidFetchSessionEpoch {
		t.Errorf("the same epoch twice: error %d", again.code)
	}
	third := c.begin(sessionRequest(12, id, 2, "-0")) // which ends the session
	if _, code := second.end([]fetchedPartition{{}}, &out); code != errInvalidFetchSessionEpoch {
		t.Errorf("the overtaken one: error %d", code)
	}
	if got, code := third.end(nil, &out); got != 0 || code != errNone {
		t.Errorf("session %d, error %d", got, code)
	}
	if nextEpoch(math.MaxInt32) != 1 {
		t.Error("the epoch does not begin again at 1")
	}
}

func manyPartitions(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%d@0", i)
	}
	return out
}

func TestFetchSessionEviction(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newSessionCache(2, 1<<20)
	c.now = func() time.Time { return now }
	create := func(partitions int) int32 {
		f := c.begin(sessionRequest(12, 0, 0, manyPartitions(partitions)...))
		id, _ := f.end(make([]fetchedPartition, partitions), &fetchReply{})
		return id
	}
	use := func(id, epoch int32) int16 {
		f := c.begin(sessionRequest(12, id, epoch))
		if f.code == errNone {
			_, f.code = f.end(make([]fetchedPartition, len(f.targets)), &fetchReply{})
		}
		return f.code
	}
	large, small := create(3), create(2)
	if create(9) != 0 {
		t.Error("a young session that is in use made room")
	}
	now = now.Add(sessionEvictable)
	if code := use(large, 1) | use(small, 1); code != 0 {
		t.Fatalf("error %d", code)
	}
	now = now.Add(time.Second) // both are old enough, and in use
	if create(1) != 0 {
		t.Error("a larger session made room for a smaller one")
	}
	next := create(2)
	if next == 0 || use(small, 2) != errFetchSessionIDNotFound || use(large, 2) != errNone {
		t.Error("the smallest session did not make room for one that is no smaller")
	}
	now = now.Add(sessionEvictable - time.Second)
	_ = use(large, 3)
	now = now.Add(2 * time.Second)
	if create(1) == 0 || use(next, 1) != errFetchSessionIDNotFound || use(large, 4) != errNone {
		t.Error("a session that nobody uses did not make room")
	}
	if n, _ := c.size(); n != 2 {
		t.Errorf("%d sessions", n)
	}
}

// The cache is bounded in bytes too, for sessions that are made and for those that grow.
func TestFetchSessionBytes(t *testing.T) {
	c := newSessionCache(10, 10*(sessionPartitionBytes+6))
	create := func(partitions int) int32 {
		f := c.begin(sessionRequest(12, 0, 0, manyPartitions(partitions)...))
		id, _ := f.end(make([]fetchedPartition, partitions), &fetchReply{})
		return id
	}
	if create(11) != 0 {
		t.Error("a session larger than the cache was made")
	}
	id := create(6)
	if id == 0 || create(5) != 0 {
		t.Error("the cache took more than its size")
	}
	if f := c.begin(sessionRequest(12, id, 1, manyPartitions(11)...)); f.code != errFetchSessionIDNotFound {
		t.Errorf("a session that outgrew the cache: error %d", f.code)
	}
	if n, bytes := c.size(); n != 0 || bytes != 0 {
		t.Errorf("%d sessions, %d bytes are left", n, bytes)
	}
	if create(10) == 0 {
		t.Error("the room was not given back")
	}
}
