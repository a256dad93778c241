package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// client is a Kafka client as people use it: a library in this process, or a program in another language.
type client interface {
	// title names the client and its version, for the table.
	title(t *testing.T) string
	traits() traits
	// produce begins to produce keyed records to a topic, idempotently if the client can, with acks=all.
	produce(t *testing.T, c *cluster, topic, codec string) producer
	// join starts a member of a group that shows what it reads. It reads from the start where nothing is committed.
	join(t *testing.T, c *cluster, group, topic string, show *readings) member
	// seek reads the first record from an offset on ("offset") or from a time on ("time", in ms).
	seek(t *testing.T, c *cluster, topic string, partition int32, by string, at int64) (reading, error)
	// admin does the operations that are asked for and checks what they did. It says which of them worked.
	admin(t *testing.T, c *cluster, stage adminStage) (did []string, err error)
}

type producer interface {
	// send hands over record i. It may wait until the client takes it.
	send(i int) error
	// close waits until all records are acknowledged, or fails.
	close() error
}

// member is a consumer in a group.
type member interface {
	// stop commits what was read and leaves the group.
	stop() error
}

// traits are what a client can do.
type traits struct {
	codecs     []string
	idempotent bool
	operations []string // of admin
}

// allCodecs are Kafka's compressions, at their numbers in a batch's attributes.
var allCodecs = []string{"none", "gzip", "snappy", "lz4", "zstd"}

// scenario puts a client through everything.
func scenario(t *testing.T, cl client) {
	c := startCluster(t)
	name := cl.title(t)
	feature(t, name, "compression", func(t *testing.T) string { return compression(t, c, cl) })
	feature(t, name, "group of three", func(t *testing.T) string { return groupOfThree(t, c, cl) })
	feature(t, name, "resume", func(t *testing.T) string { return resume(t, c, cl) })
	feature(t, name, "seek", func(t *testing.T) string { return seek(t, c, cl) })
	feature(t, name, "admin", func(t *testing.T) string { return admin(t, c, cl, name) })
	feature(t, name, "leader kill", func(t *testing.T) string { return leaderKill(t, c, cl) })
}

// send produces the records from to to-1 and waits until all are acknowledged.
func send(t *testing.T, c *cluster, cl client, topic, codec string, from, to int) {
	t.Helper()
	p := cl.produce(t, c, topic, codec)
	for i := from; i < to; i++ {
		if err := p.send(i); err != nil {
			t.Fatalf("sending record %d: %v", i, err)
		}
	}
	if err := p.close(); err != nil {
		t.Fatalf("producing %d to %d: %v", from, to, err)
	}
}

// compression: records of every codec that the client has are stored as it compressed them, and the client reads them back.
func compression(t *testing.T, c *cluster, cl client) string {
	const each = 300
	var all []reading
	c.createTopic(t, "compression", 3)
	for k, codec := range cl.traits().codecs {
		from, to := k*each, (k+1)*each
		send(t, c, cl, "compression", codec, from, to)
		var these []*kgo.Record
		for _, r := range c.read(t, "compression") {
			if i, err := number(string(r.Value)); err != nil || i >= from {
				these = append(these, r)
			}
		}
		if err := exactly(readingsOf(these), from, to); err != nil {
			t.Errorf("%s: %v", codec, err)
		}
		if err := compressedWith(these, codec); err != nil {
			t.Error(err)
		}
		all = append(all, readingsOf(these)...)
	}
	if err := ordered(all); err != nil {
		t.Error(err)
	}
	show := &readings{}
	m := cl.join(t, c, "compression", "compression", show)
	eventually(t, "the client reads what it compressed", func() error { return show.complete(0, len(all)) })
	if err := m.stop(); err != nil {
		t.Error(err)
	}
	if err := show.exactly(0, len(all)); err != nil {
		t.Error(err)
	}
	if missing := slices.DeleteFunc(slices.Clone(allCodecs), func(s string) bool { return slices.Contains(cl.traits().codecs, s) }); len(missing) > 0 {
		return "all but " + strings.Join(missing, ", ")
	}
	return "all 5"
}

// compressedWith says whether the batches of some records have the codec. Clients leave batches as they are that compression does not shrink.
func compressedWith(rs []*kgo.Record, codec string) error {
	var n int
	for _, r := range rs {
		switch stored := allCodecs[r.Attrs.CompressionType()]; stored {
		case codec:
			n++
		case "none":
		default:
			return fmt.Errorf("%s is stored as %s instead of %s", r.Value, stored, codec)
		}
	}
	if n == 0 {
		return fmt.Errorf("nothing is stored as %s", codec)
	}
	return nil
}

const groupTopic, groupName = "group", "three"

// groupOfThree: three members share six partitions; one leaves while records come, and the others go on with its partitions.
func groupOfThree(t *testing.T, c *cluster, cl client) string {
	c.createTopic(t, groupTopic, 6)
	show := &readings{}
	var members []member
	for range 3 {
		members = append(members, cl.join(t, c, groupName, groupTopic, show))
	}
	awaitMembers(t, c, groupName, 2, 2, 2)
	send(t, c, cl, groupTopic, "none", 0, 600)
	eventually(t, "three members read all", func() error { return show.complete(0, 600) })
	if err := show.exactly(0, 600); err != nil { // nothing has changed hands so far
		t.Error(err)
	}
	p := cl.produce(t, c, groupTopic, "none")
	for i := 600; i < 1200; i++ {
		if i == 800 {
			// Not while it is handed records: kcat commits, and does not show, what it gets after it was told to stop.
			eventually(t, "what there is so far is read", func() error { return show.complete(0, 700) })
			if err := members[0].stop(); err != nil {
				t.Errorf("leaving: %v", err)
			}
		}
		if err := p.send(i); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.close(); err != nil {
		t.Fatal(err)
	}
	awaitMembers(t, c, groupName, 3, 3)
	eventually(t, "two members read all", func() error { return show.complete(0, 1200) })
	for _, m := range members[1:] {
		if err := m.stop(); err != nil {
			t.Errorf("leaving: %v", err)
		}
	}
	awaitMembers(t, c, groupName)
	return "ok"
}

// awaitMembers waits until a group is stable with members that have so many partitions each; without any: until it is empty.
func awaitMembers(t *testing.T, c *cluster, group string, shares ...int) {
	t.Helper()
	want := "Stable"
	if len(shares) == 0 {
		want = "Empty"
	}
	eventually(t, fmt.Sprintf("group %s has members with %v partitions", group, shares), func() error {
		described, err := c.adm.DescribeGroups(testContext(t), group)
		if err != nil {
			return err
		}
		g := described[group]
		var have []int
		var whose []string
		for _, m := range g.Members {
			n := 0
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, at := range a.Topics {
					n += len(at.Partitions)
				}
			}
			have = append(have, n)
			whose = append(whose, fmt.Sprintf("%s: %d", m.ClientID, n))
		}
		if slices.Sort(have); g.State != want || !slices.Equal(have, shares) {
			return fmt.Errorf("%s with %v (protocol %s)", g.State, whose, g.Protocol)
		}
		return nil
	})
}

// resume: the group has committed exactly what it read, and a new member goes on there: not one record twice, not one left out.
func resume(t *testing.T, c *cluster, cl client) string {
	ensureCommitted(t, c)
	send(t, c, cl, groupTopic, "none", 1200, 1300)
	show := &readings{}
	m := cl.join(t, c, groupName, groupTopic, show)
	eventually(t, "the rest is read", func() error { return show.complete(1200, 1300) })
	if err := m.stop(); err != nil {
		t.Error(err)
	}
	if err := show.exactly(1200, 1300); err != nil {
		t.Error(err)
	}
	ensureCommitted(t, c)
	return "ok"
}

// ensureCommitted checks that the group's offsets are the ends of its partitions.
func ensureCommitted(t *testing.T, c *cluster) {
	t.Helper()
	committed, err := c.adm.FetchOffsets(testContext(t), groupName)
	if err != nil {
		t.Fatal(err)
	}
	for p, end := range c.ends(t, groupTopic) {
		// A partition that no record was read of may have no offset.
		if o, ok := committed.Lookup(groupTopic, p); (ok || end > 0) && o.At != end {
			t.Errorf("partition %d: offset %d is committed, and its end is %d", p, o.At, end)
		}
	}
}

// stagedAt is the time of record i of a topic that stage has made, in ms.
func stagedAt(i int) int64 { return 1_700_000_000_000 + 1000*int64(i) }

// stage makes a topic of one partition with n records, a second between them.
func stage(t *testing.T, c *cluster, topic string, n int) {
	t.Helper()
	c.createTopic(t, topic, 1, "retention.ms", "-1") // the records are old
	cl := c.client(t)
	var rs []*kgo.Record
	for i := range n {
		rs = append(rs, &kgo.Record{Topic: topic, Key: []byte(key(i)), Value: []byte(value(i)), Timestamp: time.UnixMilli(stagedAt(i))})
	}
	if err := cl.ProduceSync(testContext(t), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// seek: reading begins at the offset, or at the first record of a time or later.
func seek(t *testing.T, c *cluster, cl client) string {
	stage(t, c, "seek", 100)
	for _, s := range []struct {
		by   string
		at   int64
		want int
	}{{"offset", 0, 0}, {"offset", 40, 40}, {"offset", 99, 99}, {"time", 1000, 0}, {"time", stagedAt(70), 70}, {"time", stagedAt(71) - 1, 71}} {
		got, err := cl.seek(t, c, "seek", 0, s.by, s.at)
		if want := (reading{0, int64(s.want), key(s.want), value(s.want)}); err != nil || got != want {
			t.Errorf("from %s %d: %+v instead of %+v: %v", s.by, s.at, got, want, err)
		}
	}
	return "ok"
}

// operations are those of an admin client, in the order in which they are done, with the API that they need.
var operations = []struct {
	name string
	key  kmsg.Key
}{
	{"create topic", kmsg.CreateTopics}, {"describe topic", kmsg.Metadata}, {"describe cluster", kmsg.Metadata}, {"grow partitions", kmsg.CreatePartitions},
	{"alter configs", kmsg.AlterConfigs}, {"describe configs", kmsg.DescribeConfigs}, {"offsets by time", kmsg.ListOffsets}, {"delete records", kmsg.DeleteRecords},
	{"list groups", kmsg.ListGroups}, {"describe group", kmsg.DescribeGroups}, {"list group offsets", kmsg.OffsetFetch}, {"delete group offsets", kmsg.OffsetDelete},
	{"alter group offsets", kmsg.OffsetCommit}, {"delete group", kmsg.DeleteGroups}, {"describe log dirs", kmsg.DescribeLogDirs},
	{"describe producers", kmsg.DescribeProducers}, {"elect leaders", kmsg.ElectLeaders}, {"reassign partitions", kmsg.AlterPartitionAssignments}, {"delete topic", kmsg.DeleteTopics},
}

// adminStage is what an admin client finds, and should do. Topic is to be created with two partitions, and deleted in the end. Data has one
// partition with stagedRecords records as stage made them. Group has no members and has committed offset 7 of Data.
type adminStage struct {
	topic, data, group string
	operations         []string
}

const stagedRecords = 60

// admin: the client's admin operations do what they should.
func admin(t *testing.T, c *cluster, cl client, title string) string {
	s := adminStage{topic: "admin-made", data: "admin-data", group: "admin-group"}
	stage(t, c, s.data, stagedRecords)
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: s.data, At: 7, LeaderEpoch: -1})
	if err := c.adm.CommitAllOffsets(testContext(t), s.group, offsets); err != nil {
		t.Fatal(err)
	}
	served := servedAPIs(t, c)
	for _, op := range operations {
		switch {
		case !slices.Contains(cl.traits().operations, op.name):
			noteOperation(title, op.name, "not in client")
		case !served[int16(op.key)]:
			noteOperation(title, op.name, "not in broker")
		default:
			s.operations = append(s.operations, op.name)
		}
	}
	did, err := cl.admin(t, c, s)
	if err != nil {
		t.Error(err)
	}
	for _, op := range s.operations {
		cell := "ok"
		if !slices.Contains(did, op) {
			cell = "FAILED"
			t.Errorf("%s does not work", op)
		}
		noteOperation(title, op, cell)
	}
	adminAftermath(t, c, s)
	return fmt.Sprintf("ok (%d of %d)", len(did), len(operations))
}

// servedAPIs are the keys of the APIs that the brokers list.
func servedAPIs(t *testing.T, c *cluster) map[int16]bool {
	served := map[int16]bool{}
	versions, err := c.adm.ApiVersions(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions.Sorted() {
		v.EachKeySorted(func(key, _, _ int16) { served[key] = true })
	}
	return served
}

// adminAftermath checks through another client what the operations have left.
func adminAftermath(t *testing.T, c *cluster, s adminStage) {
	has := func(op string) bool { return slices.Contains(s.operations, op) }
	eventually(t, "what the operations did can be seen", func() error {
		topics, err := c.adm.ListTopics(testContext(t))
		if err != nil {
			return err
		}
		if has("delete topic") && topics.Has(s.topic) {
			err = errors.Join(err, errors.New("the deleted topic is there"))
		}
		starts, listErr := c.adm.ListStartOffsets(testContext(t), s.data)
		if o, _ := starts.Lookup(s.data, 0); has("delete records") && o.Offset != 10 {
			err = errors.Join(err, listErr, fmt.Errorf("the log begins at %d instead of 10", o.Offset))
		}
		groups, listErr := c.adm.ListGroups(testContext(t))
		if _, there := groups[s.group]; has("delete group") && there {
			err = errors.Join(err, listErr, errors.New("the deleted group is there"))
		}
		return err
	})
}

// leaderKill: a leader is killed in the middle of production, and comes back before its end. With idempotence every record is stored once, in
// order; without, at least once.
func leaderKill(t *testing.T, c *cluster, cl client) string {
	const topic, n = "kill", 9000
	c.createTopic(t, topic, 3)
	victim := c.leader(t, topic, 0)
	p := cl.produce(t, c, topic, "lz4")
	pace := time.NewTicker(10 * time.Millisecond) // 20 records each: 2,000 a second
	defer pace.Stop()
	back := make(chan error, 1)
	for i := range n {
		if i%20 == 0 {
			<-pace.C
		}
		if err := p.send(i); err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		switch i {
		case n / 3:
			c.kill(victim)
		case 2 * n / 3:
			go func() { back <- c.procs.Start(testContext(t), int(victim)-1) }()
		}
	}
	if err := errors.Join(p.close(), <-back); err != nil {
		t.Fatal(err)
	}
	stored := readingsOf(c.read(t, topic))
	if !cl.traits().idempotent {
		if err := complete(stored, 0, n); err != nil {
			t.Error(err)
		}
		return "not in client (nothing lost)"
	}
	if err := exactly(stored, 0, n); err != nil {
		t.Error(err)
	}
	if err := ordered(stored); err != nil {
		t.Error(err)
	}
	return "ok"
}
