package stable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"go.etcd.io/bbolt"

	"github.com/flotilla-log/flotilla/partition/stable/boltfile"
	"github.com/flotilla-log/flotilla/partition/transport"
)

// What protects the values, from format 2 on. Each value stands behind two CRC-32Cs, little-endian:
//
//	0  key check    of bucket, 0, group, key
//	4  value check  of the same and the value
//	8  the value
//
// and the bucket "flotilla" has, under "sum", how many values there are (u64) and the sum of their value checks (u64), with a CRC-32C of these 16 bytes behind them. It is
// written in each transaction. So a flipped bit in a value names its group, whose votes are then not believed (Damaged); and a value that is gone, or is
// an earlier one because a page took another's place, is noticed too, but not whose it was: then the file is damaged as a whole.
const (
	checksSize = 8
	sumSize    = 20
)

var (
	keySum     = []byte("sum")
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// fileKey is a key in the file: the group's ID, then the group's own key.
func fileKey(id transport.GroupID, key string) []byte {
	return append(binary.BigEndian.AppendUint64(nil, uint64(id)), key...)
}

func keyCheck(bucket, key []byte) uint32 {
	c := crc32.Update(0, castagnoli, bucket)
	c = crc32.Update(c, castagnoli, []byte{0})
	return crc32.Update(c, castagnoli, key)
}

func valueCheck(bucket, key, value []byte) uint32 {
	return crc32.Update(keyCheck(bucket, key), castagnoli, value)
}

func seal(bucket, key, value []byte) []byte {
	out := binary.LittleEndian.AppendUint32(make([]byte, 0, checksSize+len(value)), keyCheck(bucket, key))
	out = binary.LittleEndian.AppendUint32(out, valueCheck(bucket, key, value))
	return append(out, value...)
}

var (
	errKeyCheck   = errors.New("the key's check is wrong")
	errValueCheck = errors.New("the value's CRC is wrong")
)

// unseal returns the value. With errValueCheck the key is right.
func unseal(bucket, key, stored []byte) ([]byte, error) {
	if len(stored) < checksSize || binary.LittleEndian.Uint32(stored) != keyCheck(bucket, key) {
		return nil, errKeyCheck
	}
	value := stored[checksSize:]
	if binary.LittleEndian.Uint32(stored[4:]) != valueCheck(bucket, key, value) {
		return nil, errValueCheck
	}
	return value, nil
}

// total is what is under "sum".
type total struct{ count, sum uint64 }

func (t *total) add(check uint32)    { t.count++; t.sum += uint64(check) }
func (t *total) remove(check uint32) { t.count--; t.sum -= uint64(check) }

// removeStored is remove for a value as it is in the file.
func (t *total) removeStored(v []byte) {
	if len(v) >= checksSize {
		t.remove(binary.LittleEndian.Uint32(v[4:]))
	}
}

func (t total) encode() []byte {
	b := binary.LittleEndian.AppendUint64(nil, t.count)
	b = binary.LittleEndian.AppendUint64(b, t.sum)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeTotal(b []byte) (t total, err error) {
	if len(b) != sumSize || binary.LittleEndian.Uint32(b[16:]) != crc32.Checksum(b[:16], castagnoli) {
		return t, fmt.Errorf("%w: the sum of all values is damaged itself", ErrDamaged)
	}
	return total{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}, nil
}

// encodeFormat makes the format's value. Version 1 was a u16 alone.
func encodeFormat(v uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, v)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeFormat(v []byte) (uint16, error) {
	switch {
	case len(v) == 2 && binary.BigEndian.Uint16(v) == 1:
		return 1, nil
	case len(v) != 6 || binary.LittleEndian.Uint32(v[2:]) != crc32.Checksum(v[:2], castagnoli):
		return 0, fmt.Errorf("%w: no format version", ErrDamaged)
	}
	got := binary.BigEndian.Uint16(v)
	if got > formatVersion {
		return got, fmt.Errorf("%w: version %d, this release knows up to %d", ErrNewerFormat, got, formatVersion)
	}
	return got, nil
}

// content is a file as it was read.
type content struct {
	format uint16 // 0: a new file, with nothing in it
	*boltfile.File
}

// readContent reads a file that exists, before bbolt opens it. The buckets are there in any format but 0.
func readContent(path string) (c content, err error) {
	if c.File, err = boltfile.Read(path); err != nil {
		if errors.Is(err, boltfile.ErrDamaged) {
			err = fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return c, err
	}
	if len(c.Buckets) == 0 && c.TxID <= 1 { // made by a start that ended at once
		return c, nil
	}
	if c.format, err = decodeFormat(c.get(bucketFormat, keyFormat)); err != nil {
		return c, err
	}
	for _, name := range [][]byte{bucketConf, bucketMarkers} {
		if _, ok := c.Buckets[string(name)]; !ok {
			return c, fmt.Errorf("%w: bucket %s is missing", ErrDamaged, name)
		}
	}
	return c, nil
}

func (c *content) get(bucket, key []byte) []byte {
	for _, p := range c.Buckets[string(bucket)] {
		if string(p.Key) == string(key) {
			return p.Value
		}
	}
	return nil
}

// keepAll takes over the values of a file, and finds the groups whose values are damaged.
func (s *Store) keepAll(c content) error {
	found := total{}
	var slack []uint64 // for each damaged value, what its check would add to the sum if it, and not the value, is what is damaged
	for _, name := range [][]byte{bucketConf, bucketMarkers} {
		for _, p := range c.Buckets[string(name)] {
			if len(p.Key) < groupKeySize {
				return fmt.Errorf("%w: key %q in bucket %s", ErrDamaged, p.Key, name)
			}
			value, err := p.Value, error(nil)
			if c.format > 1 {
				value, err = unseal(name, p.Key, p.Value)
			}
			id, key := transport.GroupID(binary.BigEndian.Uint64(p.Key)), string(p.Key[groupKeySize:])
			switch {
			case errors.Is(err, errValueCheck):
				s.condemn(id, key, err)
				stored := binary.LittleEndian.Uint32(p.Value[4:])
				found.add(stored)
				slack = append(slack, uint64(valueCheck(name, p.Key, p.Value[checksSize:]))-uint64(stored))
				s.keep(id, cacheKey(name, key), nil)
				continue
			case err != nil:
				return fmt.Errorf("%w: key %q in bucket %s: %w", ErrDamaged, p.Key, name, err)
			}
			found.add(valueCheck(name, p.Key, value))
			s.keep(id, cacheKey(name, key), append([]byte{}, value...))
		}
	}
	s.total = found
	if c.format <= 1 {
		return nil
	}
	return checkTotal(c, found, slack)
}

// checkTotal compares what was found with what was stored. A single damaged value may be one whose check is what is damaged.
func checkTotal(c content, found total, slack []uint64) error {
	want, err := decodeTotal(c.get(bucketFormat, keySum))
	if err != nil {
		return err
	}
	if found.count != want.count || found.sum != want.sum && (len(slack) != 1 || found.sum+slack[0] != want.sum) {
		return fmt.Errorf("%w: values are missing, or are not the newest: %d of %d are there", ErrDamaged, found.count, want.count)
	}
	return nil
}

// condemn notes that a group's values are not to be believed.
func (s *Store) condemn(id transport.GroupID, key string, cause error) {
	err := fmt.Errorf("%s: raft group %d: %s: %w: %w: what this replica voted is not known any more, so it must not come back under its name", s.opts.Path, id, key, ErrDamaged, cause)
	s.damaged[id] = err
	s.log.Error("a stored term or vote is damaged", "group", id, "error", err)
}

// Damaged returns ErrDamaged with the place if one of the group's values does not have the bits that were stored, nil if all is well. None of its values can be
// read or written then until Delete or Replace has discarded them all: a replica whose vote is unknown has to return under another server ID.
func (s *Store) Damaged(id transport.GroupID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.damaged[id]
}

// Damaged is Store.Damaged of this group.
func (g *Group) Damaged() error { return g.s.Damaged(g.id) }

// upgrade makes the buckets of a new file, and gives the values of format 1, which cannot be checked, what later ones have.
func (s *Store) upgrade(db *bbolt.DB, c content) error {
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketConf, bucketMarkers, bucketFormat} {
			b, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			for _, p := range c.pairs(name) {
				if err := b.Put(p.Key, seal(name, p.Key, p.Value)); err != nil {
					return err
				}
			}
		}
		b := tx.Bucket(bucketFormat)
		if err := b.Put(keySum, s.total.encode()); err != nil {
			return err
		}
		return b.Put(keyFormat, encodeFormat(formatVersion))
	})
}

// pairs are the values to upgrade.
func (c *content) pairs(bucket []byte) []boltfile.Pair {
	if c.format != 1 || string(bucket) == string(bucketFormat) {
		return nil
	}
	return c.Buckets[string(bucket)]
}
