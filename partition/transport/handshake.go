package transport

import (
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// A connection begins with one message each way:
//
//	hello    "FLOTILLA", length u16, { min version u16, max version u16, purpose u8, 0 u8,
//	                                   cluster ID str, from str, to str, pledged str }
//	welcome  "FLOTILLA", length u16, { status u8 (0 accepted, 1 refused), 0 u8, version u16,
//	                                   cluster ID str, text str, pledged str }
//
// Bytes after the fields known here are ignored, so that a later release may add some; "pledged" was added so, and is absent in what the first
// releases send. The acceptor chooses the highest version that both speak.
const (
	magic         = "FLOTILLA"
	minVersion    = 1
	maxVersion    = 1
	maxGreeting   = 8 << 10
	statusOK      = 0
	statusRefused = 1
)

type purpose uint8

// The purposes of connections. The numbers are the protocol's.
const (
	purposeControl  purpose = 1
	purposeData     purpose = 2
	purposeCall     purpose = 3
	purposeSnapshot purpose = 4
	purposeCatchUp  purpose = 5
)

func (p purpose) String() string {
	switch p {
	case purposeControl:
		return "control"
	case purposeData:
		return "data"
	case purposeCall:
		return "call"
	case purposeSnapshot:
		return "snapshot"
	case purposeCatchUp:
		return "catch-up"
	}
	return fmt.Sprintf("purpose %d", uint8(p))
}

type hello struct {
	min, max uint16
	purpose  purpose
	cluster  string
	from, to raft.ServerAddress
	pledged  string // the cluster that the sender is about to begin
}

type welcome struct {
	refused bool
	version uint16
	cluster string
	text    string
	pledged string
}

func (h hello) encode() []byte {
	e := &encoder{}
	e.u16(h.min)
	e.u16(h.max)
	e.u8(uint8(h.purpose))
	e.u8(0)
	e.str([]byte(h.cluster))
	e.str([]byte(h.from))
	e.str([]byte(h.to))
	e.str([]byte(h.pledged))
	return greeting(e.b)
}

func decodeHello(b []byte) (hello, error) {
	d := &decoder{b: b}
	h := hello{min: d.u16(), max: d.u16(), purpose: purpose(d.u8())}
	d.u8()
	h.cluster = string(d.str())
	h.from = raft.ServerAddress(d.str())
	h.to = raft.ServerAddress(d.str())
	h.pledged = d.added()
	return h, d.err
}

func (w welcome) encode() []byte {
	e := &encoder{}
	e.u8(bit(w.refused, statusRefused))
	e.u8(0)
	e.u16(w.version)
	e.str([]byte(w.cluster))
	e.str([]byte(w.text))
	e.str([]byte(w.pledged))
	return greeting(e.b)
}

func decodeWelcome(b []byte) (welcome, error) {
	d := &decoder{b: b}
	w := welcome{refused: d.u8() != statusOK}
	d.u8()
	w.version = d.u16()
	w.cluster = string(d.str())
	w.text = string(d.str())
	w.pledged = d.added()
	return w, d.err
}

// added reads a field that earlier releases do not send.
func (d *decoder) added() string {
	if d.err == nil && len(d.b) == 0 {
		return ""
	}
	return string(d.str())
}

func greeting(body []byte) []byte {
	b := make([]byte, 0, len(magic)+2+len(body))
	b = append(b, magic...)
	b = le.AppendUint16(b, uint16(len(body)))
	return append(b, body...)
}

// readGreeting reads the body of a hello or welcome.
func readGreeting(r io.Reader) ([]byte, error) {
	var head [len(magic) + 2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	if string(head[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: not a Flotilla peer", errMalformed)
	}
	n := int(le.Uint16(head[len(magic):]))
	if n > maxGreeting {
		return nil, fmt.Errorf("%w: greeting of %d bytes", errMalformed, n)
	}
	body := make([]byte, n)
	_, err := io.ReadFull(r, body)
	return body, noEOF(err)
}

// judge decides about a hello. The text says what is wrong in words that an operator can act on.
func (t *Transport) judge(h hello) welcome {
	w := welcome{version: min(h.max, maxVersion), cluster: t.clusterID(), pledged: t.pledged()}
	switch {
	case h.min > maxVersion || h.max < minVersion:
		w.text = fmt.Sprintf("broker %s speaks transport versions %d to %d, broker %s speaks %d to %d",
			t.cfg.Local, minVersion, maxVersion, h.from, h.min, h.max)
	case h.purpose < purposeControl || h.purpose > purposeCatchUp:
		w.text = fmt.Sprintf("broker %s does not know connections for %s", t.cfg.Local, h.purpose)
	case h.from == "" || h.from == t.cfg.Local:
		w.text = fmt.Sprintf("a second broker says that it is broker %q", h.from)
	case h.to != t.cfg.Local:
		w.text = fmt.Sprintf("this is broker %s, not broker %s", t.cfg.Local, h.to)
	default:
		if err := t.agree(h.cluster); err != nil {
			w.text = err.Error()
		}
	}
	w.refused = w.text != ""
	if !w.refused {
		w.cluster = t.clusterID()
	}
	return w
}

// agree compares a peer's cluster ID with ours. A side that knows none yet accepts any, and learns it.
func (t *Transport) agree(theirs string) error {
	ours := t.clusterID()
	switch {
	case theirs == "" || theirs == ours:
		return nil
	case ours != "":
		return fmt.Errorf("broker %s belongs to cluster %s, not to cluster %s", t.cfg.Local, ours, theirs)
	case t.cfg.Learned != nil:
		return t.cfg.Learned(theirs)
	}
	return nil
}

func (t *Transport) clusterID() string {
	if t.cfg.ClusterID == nil {
		return ""
	}
	return t.cfg.ClusterID()
}

func (t *Transport) pledged() string {
	if t.cfg.Pledged == nil {
		return ""
	}
	return t.cfg.Pledged()
}

// agreedOn is the cluster that a handshake has settled on, as the dialler sees it; "" while there is none. Both sides may be pledged to begin the same one, and neither know
// yet that it has begun.
func (t *Transport) agreedOn(w welcome) string {
	if w.cluster != "" {
		return w.cluster
	}
	if own := t.clusterID(); own != "" {
		return own
	}
	if w.pledged == t.pledged() {
		return w.pledged
	}
	return ""
}

// greet runs the dialler's side of the handshake.
func (t *Transport) greet(rw io.ReadWriter, to raft.ServerAddress, p purpose) (welcome, error) {
	h := hello{min: minVersion, max: maxVersion, purpose: p, cluster: t.clusterID(), from: t.cfg.Local, to: to, pledged: t.pledged()}
	if _, err := rw.Write(h.encode()); err != nil {
		return welcome{}, err
	}
	body, err := readGreeting(rw)
	if err != nil {
		return welcome{}, err
	}
	w, err := decodeWelcome(body)
	switch {
	case err != nil:
		return w, err
	case w.refused:
		return w, fmt.Errorf("%w: %s", ErrRefused, w.text)
	case w.version < minVersion || w.version > maxVersion:
		return w, fmt.Errorf("%w: it chose transport version %d", ErrRefused, w.version)
	}
	if err := t.agree(w.cluster); err != nil {
		return w, fmt.Errorf("%w: %v", ErrRefused, err)
	}
	return w, nil
}
