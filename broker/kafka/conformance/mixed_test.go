package conformance

import (
	"testing"
)

// Members of one group may be different clients, as long as they have a way of assigning in common: here range. kafka-go is left out: it calls its
// subscription version 1 and leaves out what that version has, so that a leader of another kind gives it nothing.
func TestMixedGroup(t *testing.T) {
	const topic, group = "mixed", "mixed"
	clients := []client{saramaClient{}}
	for _, i := range []installed{kcatInstalled(), confluent(), java(), kafkaPython()} {
		if why := i.reason(); why != "" {
			note("not in the mixed group: %s: %s", i.name, why)
			continue
		}
		clients = append(clients, i.client)
	}
	c := startCluster(t)
	c.createTopic(t, topic, int32(2*len(clients)))
	show := &readings{}
	var members []member
	var shares []int
	for _, cl := range clients {
		members = append(members, cl.join(t, c, group, topic, show))
		shares = append(shares, 2)
	}
	awaitMembers(t, c, group, shares...)
	send(t, c, franz{}, topic, "zstd", 0, 1200)
	eventually(t, "all is read", func() error { return show.complete(0, 1200) })
	for _, m := range members {
		if err := m.stop(); err != nil {
			t.Error(err)
		}
	}
	awaitMembers(t, c, group)
	if err := show.complete(0, 1200); err != nil {
		t.Error(err)
	}
	note("one group of %d different clients with range assignment: %s", len(clients), map[bool]string{true: "FAILED", false: "ok"}[t.Failed()])
}
