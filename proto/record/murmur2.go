package record

import "encoding/binary"

// Murmur2 is the hash with which Kafka's producers choose the partition of a key (org.apache.kafka.common.utils.Utils.murmur2).
func Murmur2(key []byte) uint32 {
	const (
		seed = 0x9747b28c
		m    = 0x5bd1e995
	)
	h := uint32(seed) ^ uint32(len(key))
	for ; len(key) >= 4; key = key[4:] {
		k := binary.LittleEndian.Uint32(key) * m
		k ^= k >> 24
		h = h*m ^ k*m
	}
	switch len(key) {
	case 3:
		h ^= uint32(key[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(key[1]) << 8
		fallthrough
	case 1:
		h = (h ^ uint32(key[0])) * m
	}
	h = (h ^ h>>13) * m
	return h ^ h>>15
}

// PartitionForKey is the partition that a Java producer would choose for key in a topic of so many partitions: the hash without its
// sign bit, modulo the number. It is -1 if there are none.
func PartitionForKey(key []byte, partitions int32) int32 {
	if partitions <= 0 {
		return -1
	}
	return int32(Murmur2(key)&0x7fffffff) % partitions
}
