package broker

import (
	"context"
	"time"
)

// syncWait bounds the look whether this broker's metadata lags, before a topic is called unknown.
const syncWait = time.Second

// SyncMetadata implements api.Cluster.
func (b *Broker) SyncMetadata(ctx context.Context) bool { return b.syncMetadata(ctx) }

// syncMetadata brings this broker's metadata up to date with what was committed when it was called. It is false if that was not possible within syncWait: then nothing can be said of what is not there.
func (b *Broker) syncMetadata(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, syncWait)
	defer cancel()
	_, err := b.syncs.Do(ctx)
	return err == nil
}
