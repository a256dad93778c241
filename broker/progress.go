package broker

import "time"

// maxBehind is how old the newest entry of a replica may be that counts as caught up although it lacks more than maxLag entries: on a busy partition
// those are a moment's work, and a fixed number would never be reached.
const maxBehind = time.Second

// progressMarks bounds what is remembered; reconcile looks about five times a second.
const progressMarks = 32

// progress remembers where a log ended at the last few looks.
type progress struct{ marks []mark }

type mark struct {
	at   time.Time
	last uint64 // index of the last entry
}

// note remembers where the log ends now, and forgets what is too old to matter.
func (p *progress) note(now time.Time, last uint64) {
	keep := p.marks[:0]
	for _, m := range p.marks {
		if now.Sub(m.at) <= maxBehind {
			keep = append(keep, m)
		}
	}
	p.marks = append(keep[max(0, len(keep)-progressMarks+1):], mark{now, last})
}

// within says whether a replica that has all entries up to index has all that there were at some time in the last maxBehind.
func (p *progress) within(now time.Time, index uint64) bool {
	for _, m := range p.marks {
		if index >= m.last && now.Sub(m.at) <= maxBehind {
			return true
		}
	}
	return false
}
