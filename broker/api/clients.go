package api

import "context"

// Clients tells who is connected.
type Clients interface {
	// ListClients asks all brokers that are there for the connections of their Kafka listeners.
	ListClients(ctx context.Context) (ClientList, error)
}

// ClientGroup is connections of one broker that have all of this in common.
type ClientGroup struct {
	Broker   BrokerID
	Listener string
	// Host is without the port.
	Host string
	// ClientID is that of its latest request; empty: none.
	ClientID string
	// Software and SoftwareVersion are what it says of itself (KIP-511); empty: nothing.
	Software, SoftwareVersion string
	Connections               int
	// SinceMs is the age of the oldest connection, as a time in Unix ms.
	SinceMs int64
}

// ClientList is the answer of ListClients, sorted by broker, host and client ID.
type ClientList struct {
	Clients []ClientGroup
	// Missing are brokers that should be there and did not answer.
	Missing []BrokerID
	// Omitted is how many connections are in none of the groups.
	Omitted int
}
