// Package kafka serves the Kafka wire protocol on top of an api.Broker.
//
// It translates and bounds, nothing else: what a request means is decided behind api.Broker. Each API has a file named for its key, whose
// entry in the table (table.go) gives the range of versions that ApiVersions tells clients; errors.go is the one table from errors to
// Kafka's error codes.
//
//	server.go            listener, life of the connections, who is connected
//	conn.go, write.go    one connection: reading within bounds, answering in order
//	header.go, decode.go bytes to requests; package layout checks them first
//	00_produce.go ...    the APIs
//
// Messages are those of github.com/twmb/franz-go/pkg/kmsg, except the fetch response, which is written straight from the stored batches.
package kafka
