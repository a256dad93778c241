package raftlog

import "github.com/hashicorp/raft"

// headerOnlyMin is from which size on GetHeader leaves an entry's data on the disk: less than that has been read with the header anyway.
const headerOnlyMin = entryChunk

// GetHeader is GetLog without the data of an entry that is large and not in the tail cache: then Data and Extensions stay nil and size says how many bytes they have. Of other entries it
// returns all, and size is 0. Nothing verifies a header alone: whoever acts on more than that the entry exists reads it by GetLog.
func (l *Log) GetHeader(index uint64, out *raft.Log) (size int, err error) {
	err = l.getOrEnd(index, out, func(i Index, out *raft.Log) error {
		size = 0
		return l.headerFromDisk(i, out, &size)
	})
	return size, err
}

// headerFromDisk is getFromDisk that reads no more than it must.
func (l *Log) headerFromDisk(i Index, out *raft.Log, size *int) error {
	p, h, err := l.placeOfIndex(i)
	if err != nil {
		return err
	}
	defer l.files.release(h)
	sc := p.seg.scan(h.file, p.from, p.end, entryChunk)
	defer sc.close()
	for sc.index < i {
		if _, err := sc.skip(); err != nil {
			return p.seg.readError(sc.pos, err)
		}
	}
	head, err := sc.readHeader()
	switch {
	case err != nil:
		return p.seg.readError(sc.pos, err)
	case head.size() <= headerOnlyMin:
		f, err := sc.read()
		if err != nil {
			return p.seg.readError(sc.pos, err)
		}
		*out = head.entry(append([]byte(nil), f.raw...))
	default:
		*out = raft.Log{Index: uint64(i), Term: head.term, Type: head.kind}
		*size = int(head.length) + int(head.extLen)
		sc.advance(head)
	}
	l.cursors.put(p, point{index: i + 1, offset: unknownOffset, pos: uint32(sc.pos)})
	return nil
}
