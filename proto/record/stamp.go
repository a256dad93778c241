package record

import "encoding/binary"

// Stamp writes the base offset and the leader epoch into a batch, in place. Both lie outside the CRC, so it stays valid. b must have
// passed Validate.
func Stamp(b []byte, base Offset, leaderEpoch int32) {
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(base))
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(leaderEpoch))
}

// SetLogAppendTime gives all records the time ms (Unix milliseconds), in place and without decoding them: it sets the attribute and the
// maximum timestamp, and renews the CRC. b must be one whole batch that has passed Validate.
func SetLogAppendTime(b []byte, ms int64) {
	a := Attributes(binary.BigEndian.Uint16(b[posAttributes:])) | attrLogAppendTime
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(a))
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(ms))
	seal(b)
}

// SetProducer writes an idempotent producer's identity and the sequence number of the first record into a batch, in place, and renews
// the CRC. A batch that has been sent once must not be given another sequence number: the broker could no longer tell that it is the
// same. id -1, epoch -1, sequence -1 make the batch an ordinary one.
func SetProducer(b []byte, id int64, epoch int16, baseSequence int32) {
	binary.BigEndian.PutUint64(b[posProducerID:], uint64(id))
	binary.BigEndian.PutUint16(b[posProducerEpoch:], uint16(epoch))
	binary.BigEndian.PutUint32(b[posBaseSequence:], uint32(baseSequence))
	seal(b)
}
