package record

import "errors"

var (
	// ErrCorrupt comes when bytes are not what their CRC or the format says: damaged on the way or on disk. Producing the same
	// batch again from its source may succeed.
	ErrCorrupt = errors.New("corrupt record batch")
	// ErrInvalid comes for what is intact but not acceptable: another magic, no records, impossible counts or attributes. Sending it
	// again is of no use.
	ErrInvalid = errors.New("invalid record batch")
	// ErrTooLarge comes when a limit of the caller is passed: decompressed size, or a builder's MaxBytes.
	ErrTooLarge = errors.New("record batch too large")
	// ErrUnsupportedCompression comes for a compression type that Kafka's format does not know.
	ErrUnsupportedCompression = errors.New("unsupported compression type")
)
