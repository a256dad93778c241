package kafka

import (
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/flotilla-log/flotilla/broker/kafka/layout"
)

// largeRequest is the size from which on requests without records are decoded one at a time: decoded, small elements may take a hundred times
// the bytes that they came in.
const largeRequest = 64 << 10

var decodeLarge sync.Mutex

// decode reads a request's body. The message may keep parts of body. It never panics.
func decode(msg kmsg.Request, body []byte) (err error) {
	if err := layout.Check(msg.Key(), msg.GetVersion(), body); err != nil {
		return fmt.Errorf("%w: %s: %w", errMalformed, kmsg.NameForKey(msg.Key()), err)
	}
	if len(body) > largeRequest && msg.Key() != keyProduce {
		decodeLarge.Lock()
		defer decodeLarge.Unlock()
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %s version %d: %v", errMalformed, kmsg.NameForKey(msg.Key()), msg.GetVersion(), p)
		}
	}()
	if err := msg.ReadFrom(body); err != nil {
		return fmt.Errorf("%w: %s version %d: %w", errMalformed, kmsg.NameForKey(msg.Key()), msg.GetVersion(), err)
	}
	return nil
}
