package broker_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/flotilla-log/flotilla/broker"
	"github.com/flotilla-log/flotilla/broker/api"
	"github.com/flotilla-log/flotilla/broker/brokertest"
	"github.com/flotilla-log/flotilla/broker/metadata"
	pb "github.com/flotilla-log/flotilla/proto/flotilla/v1"
)

// startOn tries to start a broker on a directory, and ends it again if it does start.
func startOn(t *testing.T, c *brokertest.Cluster, id api.BrokerID, dir string) error {
	t.Helper()
	cfg := broker.DefaultConfig()
	cfg.ID, cfg.DataDir = id, dir
	cfg.GRPCAddr, cfg.PeerAddr, cfg.GossipAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	b, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := c.Context()
	defer cancel()
	err = b.Start(ctx)
	if err == nil {
		b.Kill()
	}
	return err
}

// edit replaces a file's content and returns what it was.
func edit(t *testing.T, path string, f func([]byte) []byte) (old []byte) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(append([]byte(nil), old...)), 0o644); err != nil {
		t.Fatal(err)
	}
	return old
}

// newerVersion writes another version behind the eight bytes of magic that all files of a log begin with. With that alone the CRC would say that it is damage.
func newerVersion(b []byte) []byte {
	binary.LittleEndian.PutUint16(b[8:], 99)
	b[10] ^= 0xff
	return b
}

// A broker does not start on an identity file that it does not understand, and leaves it alone.
func TestIdentityFileIsChecked(t *testing.T) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("t", 1, 1)
	c.Produce("t", 0, "kept")
	c.Stop(1)
	path := filepath.Join(c.Node(1).Dir, "broker.json")
	for _, x := range []struct {
		name  string
		to    func([]byte) []byte
		want  error
		words []string
	}{
		{"newer", func(b []byte) []byte {
			return []byte(strings.Replace(string(b), `"format_version": 1`, `"format_version": 2`, 1))
		}, metadata.ErrNewerFormat, []string{"broker.json", "version 2", "knows 1", "pgrade"}},
		{"no JSON", func([]byte) []byte { return []byte("{") }, metadata.ErrMalformed, []string{"broker.json"}},
		{"empty", func([]byte) []byte { return nil }, metadata.ErrMalformed, []string{"broker.json"}},
		{"without incarnation", func([]byte) []byte { return []byte(`{"format_version":1,"broker_id":1}`) }, metadata.ErrMalformed, []string{"broker.json"}},
	} {
		old := edit(t, path, x.to)
		changed, _ := os.ReadFile(path)
		err := startOn(t, c, 1, c.Node(1).Dir)
		if !errors.Is(err, x.want) {
			t.Errorf("%s: %v", x.name, err)
			continue
		}
		for _, w := range x.words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", x.name, err, w)
			}
		}
		if now, _ := os.ReadFile(path); string(now) != string(changed) {
			t.Errorf("%s: the file was changed", x.name)
		}
		edit(t, path, func([]byte) []byte { return old })
	}
	c.Restart(1)
	if got := c.ReadAll("t", 0); len(got) != 1 {
		t.Errorf("%d records", len(got))
	}
}

// Files of a replica that a later release wrote: the replica stays closed and says so in the cluster's status, nothing is set aside or
// changed, the broker serves all else, and once the files are what they were the replica opens by itself.
func TestNewerReplicaFiles(t *testing.T) {
	for _, globs := range [][]string{{"*.log", "*.idx"}, {"*.ckpt"}, {"start"}, {"clean"}} {
		t.Run(globs[0], func(t *testing.T) { testNewerReplicaFiles(t, globs) })
	}
}

func testNewerReplicaFiles(t *testing.T, globs []string) {
	c := brokertest.Start(t, brokertest.Options{Brokers: 1})
	c.CreateTopic("other", 1, 1)
	c.Produce("other", 0, "fine")
	others := c.ReplicaDirs(1)
	c.CreateTopic("t", 1, 1)
	c.Produce("t", 0, "kept")
	c.Stop(1)
	newer := map[string][]byte{} // what the files hold
	older := map[string][]byte{}
	for _, path := range replicaFiles(t, c, others, globs) {
		older[path] = edit(t, path, newerVersion)
		newer[path] = newerVersion(append([]byte(nil), older[path]...))
	}
	c.Launch(1)
	c.Eventually("the status tells of the newer file", func() error { return problemSays(c, "newer release", "version 99", "up to 1") })
	c.Produce("other", 0, "still fine")
	ctx, cancel := c.Context()
	defer cancel()
	_, err := pb.NewLogClient(c.Conn(1)).Produce(ctx, &pb.ProduceRequest{Topic: "t", Payload: &pb.ProduceRequest_Batch{Batch: batchOf(t, 0, "x")}})
	if d := brokertest.Detail(err); !d.GetRetriable() {
		t.Errorf("producing to the closed partition: %v", err)
	}
	for path, content := range newer {
		edit(t, path, func(now []byte) []byte {
			if string(now) != string(content) {
				t.Errorf("%s was changed", path)
			}
			return older[path]
		})
	}
	if got := c.ReadAll("t", 0); len(got) != 1 || string(got[0].Value) != "kept" {
		t.Errorf("after the files are back: %v", got)
	}
}

// problemSays looks for one problem of the cluster's status that has all these words.
func problemSays(c *brokertest.Cluster, words ...string) error {
	ctx, cancel := c.Context()
	defer cancel()
	st, err := pb.NewClusterClient(c.Any()).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return err
	}
	for _, p := range st.Problems {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(p.Problem, w) }) {
			return nil
		}
	}
	return fmt.Errorf("no problem says %q: %v", words, st.Problems)
}

// replicaFiles lists files of the one replica directory on broker 1 that is not among those known.
func replicaFiles(t *testing.T, c *brokertest.Cluster, known, globs []string) []string {
	t.Helper()
	var out []string
	for _, d := range c.ReplicaDirs(1) {
		for _, glob := range globs {
			files, err := filepath.Glob(filepath.Join(c.Node(1).Dir, "partitions", d, glob))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(known, d) {
				out = append(out, files...)
			}
		}
	}
	if len(out) < len(globs) {
		t.Fatalf("found %v for %v", out, globs)
	}
	return out
}
