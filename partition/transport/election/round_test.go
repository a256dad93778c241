package election

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// rounds makes every replica's Elector take part in rounds of claims for a while, as the transport does.
func (w *world) rounds(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		for _, r := range w.replicas {
			w.mu.Lock()
			dead := r.dead
			w.mu.Unlock()
			if !dead {
				r.claimant.Round()
			}
		}
	}
}

func (w *world) set(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

func TestLeaderClaims(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		if c := w.replicas[0].claimant.Round(); c.Term != 1 || c.Commit != 10 || len(c.Servers) != 3 {
			t.Errorf("the leader claims %+v", c)
		}
		if c := w.replicas[1].claimant.Round(); c.Term != 0 {
			t.Errorf("a follower claims %+v", c)
		}
	})
}

func TestLeaderWithoutQuorumStepsDown(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		old := w.replicas[0]
		w.set(func() { old.silence = map[raft.ServerID]time.Duration{"r1": time.Hour, "r2": Lease} })
		w.rounds(10 * time.Second)
		wantLeaders(t, w, "0", "0", "0")
		w.set(func() { old.silence["r2"] = Lease + 1 })
		old.claimant.Round()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(old.yielded) != 1 || old.yielded[0] != 1 {
			t.Errorf("stepped down in terms %v, not in 1", old.yielded)
		}
	})
}

// A later term is no less reason to follow than in the Raft paper; an earlier one is none.
func TestOvertakenLeaderStepsDown(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.replicas[0].claimant.Overtaken(1)
		wantLeaders(t, w, "0", "0", "0")
		w.replicas[0].claimant.Overtaken(7)
		wantLeaders(t, w, "0", "0", "0") // who is in that term may be about to ask for votes
		time.Sleep(overtakenFor)
		w.replicas[0].claimant.Overtaken(7)
		w.mu.Lock()
		defer w.mu.Unlock()
		if y := w.replicas[0].yielded; len(y) != 1 || y[0] != 7 {
			t.Errorf("stepped down in terms %v, not in 7", y)
		}
	})
}

// A leader that says that it is none, or is not claimed any more, is replaced though its broker is there.
func TestDisownedLeaderIsReplaced(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() {
			w.replicas[0].dead = true // the replica
			for _, r := range w.replicas[1:] {
				r.disowned = map[raft.ServerAddress]bool{"0": true}
			}
		})
		w.replicas[1].claimant.LeaderEnded()
		time.Sleep(Stagger)
		wantLeaders(t, w, "0", "1", "1")
	})
}

// The same, but nobody is told; the rounds show it.
func TestRoundsMakeUpForWhatWasMissed(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() {
			w.replicas[0].dead = true
			w.replicas[1].leader, w.replicas[2].leader = "", ""
		})
		w.rounds(time.Second)
		wantLeaders(t, w, "0", "1", "1")
	})
}

// One follower is wrong about the leader: the others do not follow it.
func TestOneFollowersDoubtIsNotEnough(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() { w.replicas[1].disowned = map[raft.ServerAddress]bool{"0": true} })
		w.replicas[1].claimant.LeaderEnded()
		w.rounds(time.Minute)
		wantLeaders(t, w, "0", "0", "0")
		if n := w.campaigns(); n > 0 {
			t.Errorf("%d elections", n)
		}
	})
}

// Raft that has stood and was not elected would wait for its timeout.
func TestCandidateStandsAgain(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() {
			for _, r := range w.replicas[1:] {
				r.lose, r.stands = true, true
			}
		})
		w.kill(0, 1, 2)
		time.Sleep(CampaignPause / 2)
		w.set(func() {
			for _, r := range w.replicas[1:] {
				r.lose = false
			}
		})
		time.Sleep(4 * CampaignPause)
		got := w.leaders()
		if got[1] != got[2] || got[1] == "0" || got[1] == "" {
			w.story(t)
			t.Fatalf("leaders %v", got)
		}
		again := uint64(0)
		for _, r := range w.replicas[1:] {
			for _, stuck := range r.stuck {
				again = max(again, stuck)
			}
		}
		if again == 0 {
			w.story(t)
			t.Error("nobody was made to stand again")
		}
	})
}

// A quorum that comes back after hours has a leader at once.
func TestQuorumComesBack(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() { w.gone["1"]["2"], w.gone["2"]["1"] = true, true })
		w.kill(0, 1, 2)
		time.Sleep(3 * time.Hour)
		wantLeaders(t, w, "0", "0", "0")
		w.set(func() { w.gone["1"]["2"], w.gone["2"]["1"] = false, false })
		w.replicas[1].watchers[0]("2", false)
		w.replicas[2].watchers[0]("1", false)
		time.Sleep(2 * Stagger)
		wantLeaders(t, w, "0", "1", "1")
	})
}

// Who hears of a candidate does not stand himself, which would be in the same term.
func TestCandidateIsLeftTheField(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() { w.replicas[0].dead = true })
		for _, r := range w.replicas[1:] {
			r.elector.Observe(&raft.Observation{Data: raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("r2")}, Term: 2, LastLogIndex: 10, LastLogTerm: 1}})
		}
		w.lose(1, 0)
		w.lose(2, 0)
		time.Sleep(holdBack - time.Millisecond)
		if n := w.campaigns(); n > 0 {
			w.story(t)
			t.Errorf("%d elections", n)
		}
		time.Sleep(time.Second)
		if n := w.campaigns(); n != 1 {
			w.story(t)
			t.Errorf("%d elections afterwards", n)
		}
	})
}

// replacesTheCandidate has replica 2 hear of a candidate that lacks entries, replica 1, and wants it to be elected in spite of that.
func replacesTheCandidate(t *testing.T, w *world) {
	t.Helper()
	e := w.replicas[2].elector
	e.Observe(&raft.Observation{Data: raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte("r1")}, Term: 2, LastLogIndex: 9, LastLogTerm: 1}})
	e.Observe(&raft.Observation{Data: raft.LeaderObservation{}})
	leadersWithin(t, w, vacancy-50*time.Millisecond, "0", "2", "2")
}

// A candidate that lacks entries is left the field only as long as an election takes: a leader that failed may have nominated it.
func TestCandidateThatLacksEntriesIsNotLeftTheField(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() {
			w.replicas[0].dead = true
			w.replicas[1].last = position{9, 1}
			w.replicas[1].term, w.replicas[1].leader, w.replicas[1].state = 2, "", raft.Candidate
			w.replicas[2].term, w.replicas[2].leader = 2, ""
		})
		replacesTheCandidate(t, w)
	})
}

// A candidate that cannot win, and that raft has believe in its failed leader still, does not refuse the one that can.
func TestCandidateFollowsNobody(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.set(func() {
			w.replicas[0].dead = true // and nobody has evidence of that, since its broker goes on
			w.replicas[1].last = position{9, 1}
			w.replicas[1].term, w.replicas[1].leader, w.replicas[1].state = 2, "0", raft.Candidate
			w.replicas[2].term, w.replicas[2].leader = 2, ""
		})
		replacesTheCandidate(t, w)
	})
}

func (w *world) pushes() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.log {
		if len(l) > 11 && l[len(l)-11:] == "sends again" {
			n++
		}
	}
	return n
}

// What a follower lacks is sent again while it gets nothing, ever more rarely, and not for ever.
func TestFollowerThatLagsIsSentToAgain(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		w.rounds(time.Minute)
		if n := w.pushes(); n > 0 {
			t.Fatalf("%d times though nobody lags", n)
		}
		leader := w.replicas[0]
		w.set(func() { leader.match = map[raft.ServerID]uint64{"r1": 9} })
		w.rounds(1100 * time.Millisecond)
		if n := w.pushes(); n != 1 {
			t.Errorf("%d times within a second", n)
		}
		w.rounds(time.Hour)
		if n := w.pushes(); n != lagPauses {
			t.Errorf("%d times, not %d", n, lagPauses)
		}
		w.set(func() { leader.match["r1"] = 8 }) // something has changed
		w.rounds(900 * time.Millisecond)
		if n := w.pushes(); n != lagPauses+1 {
			t.Errorf("%d times, not one more", n-lagPauses)
		}
	})
}

// There is no use in sending to who is not heard, nor to who makes progress.
func TestFollowerThatIsAwayOrBusyIsNotSentToAgain(t *testing.T) {
	run(t, 3, func(t *testing.T, w *world) {
		leader := w.replicas[0]
		w.set(func() {
			leader.match = map[raft.ServerID]uint64{"r1": 1, "r2": 1}
			leader.silence = map[raft.ServerID]time.Duration{"r1": Lease}
		})
		for i := range uint64(8) {
			w.set(func() { leader.match["r2"] = 1 + i })
			w.rounds(time.Millisecond)
		}
		if n := w.pushes(); n > 0 {
			t.Errorf("%d times", n)
		}
	})
}
