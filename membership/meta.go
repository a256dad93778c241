package membership

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"
)

// A Meta on the wire is one byte of version and then fields: tag (1 byte), length (uvarint), bytes. Fields with unknown tags are
// skipped, so a newer release may add some; a change that older releases must not misread raises the version.
const metaVersion = 1

// Tags of the fields. Numbers are never reused. Integers are uvarints; empty fields are left out.
const (
	tagID = iota + 1
	tagIncarnation
	tagClusterID
	tagGRPCAddr
	tagPeerAddr
	tagRack
	tagVersion
	tagExpect
	tagSet // uvarints one after the other
	tagLeaving
	tagKafkaAddr
	tagKafkaListeners
)

// maxSet bounds the bootstrap set that is accepted from others.
const maxSet = 64

var errMeta = errors.New("membership: malformed metadata")

// wireMeta is a Meta with what only this package needs.
type wireMeta struct {
	Meta
	leaving bool
}

func (m *wireMeta) encode() ([]byte, error) {
	b := appendField([]byte{metaVersion}, tagID, binary.AppendUvarint(nil, uint64(m.ID)))
	for _, f := range []struct {
		tag byte
		s   string
	}{
		{tagIncarnation, m.Incarnation}, {tagClusterID, m.ClusterID}, {tagGRPCAddr, m.GRPCAddr},
		{tagPeerAddr, m.PeerAddr}, {tagRack, m.Rack}, {tagVersion, m.Version}, {tagKafkaAddr, m.KafkaAddr},
		{tagKafkaListeners, m.KafkaListeners},
	} {
		b = appendField(b, f.tag, []byte(f.s))
	}
	if m.Bootstrap.Expect > 0 {
		b = appendField(b, tagExpect, binary.AppendUvarint(nil, uint64(m.Bootstrap.Expect)))
	}
	var set []byte
	for _, id := range m.Bootstrap.Set {
		set = binary.AppendUvarint(set, uint64(id))
	}
	b = appendField(b, tagSet, set)
	if m.leaving {
		b = appendField(b, tagLeaving, []byte{1})
	}
	if len(b) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("%w: %d bytes of at most %d; shorten addresses, names of Kafka listeners, rack or version", ErrMetaTooLarge, len(b), memberlist.MetaMaxSize)
	}
	return b, nil
}

// appendField leaves empty fields out.
func appendField(b []byte, tag byte, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

func decodeMeta(b []byte) (*wireMeta, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty", errMeta)
	}
	if b[0] != metaVersion {
		return nil, fmt.Errorf("%w: version %d, this release knows %d", errMeta, b[0], metaVersion)
	}
	m := &wireMeta{Meta: Meta{ID: -1}}
	for b = b[1:]; len(b) > 0; {
		tag := b[0]
		size, n := binary.Uvarint(b[1:])
		if n <= 0 || size > uint64(len(b)-1-n) {
			return nil, fmt.Errorf("%w: field %d is cut", errMeta, tag)
		}
		value := b[1+n : 1+n+int(size)]
		if err := m.set(tag, value); err != nil {
			return nil, err
		}
		b = b[1+n+int(size):]
	}
	if m.ID < 0 || m.Incarnation == "" {
		return nil, fmt.Errorf("%w: no broker ID or incarnation", errMeta)
	}
	return m, nil
}

func (m *wireMeta) set(tag byte, value []byte) (err error) {
	switch tag {
	case tagID:
		m.ID, _, err = readInt(value)
	case tagIncarnation:
		m.Incarnation = string(value)
	case tagClusterID:
		m.ClusterID = string(value)
	case tagGRPCAddr:
		m.GRPCAddr = string(value)
	case tagPeerAddr:
		m.PeerAddr = string(value)
	case tagKafkaAddr:
		m.KafkaAddr = string(value)
	case tagKafkaListeners:
		m.KafkaListeners = string(value)
	case tagRack:
		m.Rack = string(value)
	case tagVersion:
		m.Version = string(value)
	case tagExpect:
		var n int32
		n, _, err = readInt(value)
		m.Bootstrap.Expect = int(n)
	case tagSet:
		m.Bootstrap.Set, err = readSet(value)
	case tagLeaving:
		m.leaving = true
	}
	return err
}

func readInt(b []byte) (int32, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 || v > 1<<31-1 {
		return 0, nil, fmt.Errorf("%w: bad number", errMeta)
	}
	return int32(v), b[n:], nil
}

func readSet(b []byte) ([]int32, error) {
	var out []int32
	for len(b) > 0 {
		id, rest, err := readInt(b)
		if err != nil {
			return nil, err
		}
		if len(out) == maxSet {
			return nil, fmt.Errorf("%w: bootstrap set of more than %d", errMeta, maxSet)
		}
		out, b = append(out, id), rest
	}
	return out, nil
}

// validate checks what this broker is about to tell.
func (m *Meta) validate() error {
	switch {
	case m.ID < 0:
		return fmt.Errorf("membership: broker ID %d is negative", m.ID)
	case m.Incarnation == "":
		return errors.New("membership: no incarnation")
	case m.Bootstrap.Expect < 0 || m.Bootstrap.Expect > maxSet || len(m.Bootstrap.Set) > maxSet:
		return fmt.Errorf("membership: bootstrap with %d brokers; at most %d", m.Bootstrap.Expect, maxSet)
	}
	_, err := (&wireMeta{Meta: *m}).encode()
	return err
}
