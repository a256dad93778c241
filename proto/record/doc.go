// Package record is the codec of Kafka's record batches (format version 2, KIP-98), which are what a producer sends, what a log
// entry holds and what a consumer receives, byte for byte.
//
// A batch is a header of 61 bytes, all integers big-endian, followed by the records, which are compressed as one block if at all:
//
//	 0  baseOffset            int64   offset of the first record; stamped by the partition's leader
//	 8  batchLength           int32   bytes after this field
//	12  partitionLeaderEpoch  int32   stamped by the partition's leader
//	16  magic                 int8    2
//	17  crc                   uint32  CRC-32C of everything after this field
//	21  attributes            int16   bits 0-2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon
//	23  lastOffsetDelta       int32   offset of the last record less baseOffset
//	27  baseTimestamp         int64   Unix milliseconds
//	35  maxTimestamp          int64   Unix milliseconds
//	43  producerId            int64   -1: not idempotent
//	51  producerEpoch         int16
//	53  baseSequence          int32
//	57  recordsCount          int32
//	61  records
//
// A record, once decompressed, is (varint: zigzag):
//
//	length          varint  bytes after this field
//	attributes      int8    unused
//	timestampDelta  varint  to baseTimestamp
//	offsetDelta     varint  to baseOffset
//	keyLength       varint  -1: null
//	key
//	valueLength     varint  -1: null
//	value
//	headersCount    varint
//	headers         each: keyLength varint, key, valueLength varint (-1: null), value
//
// Decoders take bytes from the network and from disks: they never panic, and never allocate more than the length of their input
// (or, for compressed batches, the caller's limit) justifies. ParseHeader, Validate, Stamp and Builder.Append do not allocate per
// record.
package record
