// Package client is the Go client of Flotilla, over its gRPC API.
//
// A Client is the connection to a cluster. From it come producers, consumers and the administration; any number of them, and of
// goroutines, share it:
//
//	c, err := client.New([]string{"10.0.0.1:7070", "10.0.0.2:7070"})
//	defer c.Close()
//
// # Producing
//
// A Producer gathers records into batches and keeps several of them under way. Its callback says when a record is on the disks of a
// quorum; Produce waits for that.
//
//	p, err := c.NewProducer(client.WithCompression(record.Zstd))
//	err = p.Produce(ctx, &client.Record{Topic: "orders", Key: []byte("42"), Value: value})
//	p.ProduceAsync(ctx, r, func(r *client.Record, err error) { ... })
//	err = p.Close(ctx)
//
// Records with the same key go to the same partition, the one that a Java producer would choose. Within a partition records are stored in the order
// in which they were produced, and, unless idempotence is switched off, once, whatever has to be repeated. Memory is bounded: a producer
// faster than the cluster is made to wait. Append stores a batch only if it gets the offset that the caller expects, which is
// compare-and-swap on a log.
//
// # Consuming
//
// A Consumer reads the partitions that it is told to, each from an offset, a time or an end of the log. A GroupConsumer shares the
// partitions of topics with the other members of its group, and begins where the group has committed:
//
//	g, err := c.NewGroupConsumer("billing", []string{"orders"})
//	for {
//		records, err := g.Poll(ctx)
//		...
//	}
//
// Both fetch ahead of Poll, as far as a bound in bytes allows.
//
// # Errors
//
// What a broker refuses comes as an *Error, in which there are a Code, whether a retry may help, and what the error is about. Codes work with
// errors.Is:
//
//	if errors.Is(err, client.CodeTopicAlreadyExists) { ... }
//
// The client repeats what may succeed later by itself: a call until its context or the request timeout ends, a record until its
// delivery timeout. Besides, there are ErrClosed, ErrDeliveryTimeout, ErrOutcomeUnknown and ErrBufferFull.
package client
