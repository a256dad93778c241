package partition

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/flotilla-log/flotilla/proto/record"
	"github.com/flotilla-log/flotilla/raftlog"
)

// The first byte of an entry says what it is: below 0x80 a record batch, 0x80 to 0xEF a command of the group's Machine, and from 0xF0 on one of
// this package, whose low four bits are the format version.
const (
	machineCommandMin = 0x80
	ownCommandMin     = 0xF0
	commandVersion    = 1

	commandTrim = 1
)

var errCommand = errors.New("command is not understood")

// trimCommand moves the log start, and lets go of a machine group's entries up to an index. Both only ever move forward.
//
//	0xF1  version 1 of this package's commands
//	0x01  trim
//	uvarint  log start, an offset
//	uvarint  index up to which entries without records may go; 0: none
type trimCommand struct {
	logStart record.Offset
	index    raftlog.Index
}

func (c trimCommand) encode() []byte {
	b := make([]byte, 0, 2+2*binary.MaxVarintLen64)
	b = append(b, ownCommandMin|commandVersion, commandTrim)
	b = binary.AppendUvarint(b, uint64(c.logStart))
	return binary.AppendUvarint(b, uint64(c.index))
}

// decodeCommand decodes a command of this package. An unknown version or kind was written by a newer release: a replica that skipped it would
// silently differ from the others, so it must stop instead.
func decodeCommand(b []byte) (trimCommand, error) {
	if len(b) < 2 || b[0] != ownCommandMin|commandVersion || b[1] != commandTrim {
		return trimCommand{}, fmt.Errorf("%w: it begins with %x; a newer release may have written it", errCommand, b[:min(2, len(b))])
	}
	r := reader{b: b[2:]}
	c := trimCommand{logStart: r.offset(), index: raftlog.Index(r.uvarint())}
	if err := r.end(); err != nil {
		return trimCommand{}, fmt.Errorf("%w: trim: %w", errCommand, err)
	}
	return c, nil
}
