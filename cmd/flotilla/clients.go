package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/flotilla-log/flotilla/client"
)

// clientsJSON is the JSON of 'cluster clients'.
type clientsJSON struct {
	Clients            []clientJSON `json:"clients"`
	MissingBrokers     []int32      `json:"missingBrokers,omitempty"`
	OmittedConnections int32        `json:"omittedConnections,omitempty"`
}

type clientJSON struct {
	Broker          int32     `json:"broker"`
	Listener        string    `json:"listener"`
	Host            string    `json:"host"`
	ClientID        string    `json:"clientId,omitempty"`
	Software        string    `json:"software,omitempty"`
	SoftwareVersion string    `json:"softwareVersion,omitempty"`
	Connections     int32     `json:"connections"`
	Since           time.Time `json:"since"`
}

func (a *app) clusterClientsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "clients",
		Short: "Show who is connected to the Kafka listeners, and with what software",
		Long: `Show who is connected to the Kafka listeners of all brokers, and with what software. Connections of one host that have the same client.id and
software are one line. Clients older than Kafka 2.4 do not say what they are.`,
		Example: "  flotilla cluster clients\n  flotilla cluster clients -o json | jq '.clients[].software'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withAdmin(func(admin *client.Admin) error {
				l, err := admin.ListClients(cmd.Context())
				if err != nil {
					return err
				}
				view := clientsToJSON(&l)
				return a.emit(view, func(w io.Writer) { writeClients(w, view) })
			})
		},
	}
}

func clientsToJSON(l *client.ClientList) *clientsJSON {
	view := &clientsJSON{Clients: []clientJSON{}, MissingBrokers: l.MissingBrokers, OmittedConnections: l.OmittedConnections}
	for _, c := range l.Clients {
		view.Clients = append(view.Clients, clientJSON(c))
	}
	return view
}

func writeClients(w io.Writer, l *clientsJSON) {
	if len(l.Clients) == 0 {
		fmt.Fprintln(w, "no client is connected")
	} else {
		t := newTable("BROKER", "LISTENER", "HOST", "CLIENT ID", "SOFTWARE", "VERSION", "CONNECTIONS", "SINCE")
		for _, c := range l.Clients {
			t.row(c.Broker, c.Listener, c.Host, dash(c.ClientID), dash(c.Software), dash(c.SoftwareVersion), c.Connections, c.Since.UTC().Format(time.RFC3339))
		}
		t.write(w)
	}
	if l.OmittedConnections > 0 {
		fmt.Fprintf(w, "and %s more\n", count(int(l.OmittedConnections), "connection"))
	}
	for _, id := range l.MissingBrokers {
		fmt.Fprintf(w, "broker %d did not answer\n", id)
	}
}
