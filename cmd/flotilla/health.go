package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

type brokerHealth struct {
	Broker string `json:"broker"`
	Status string `json:"status"`
	Error  string `json:"error,omitempty"`
}

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "health",
		Short: "Ask each of --brokers whether it serves",
		Long: `Ask each of --brokers, by the standard gRPC health service, whether it belongs to a cluster and serves.
It exits with 0 if all do and with 7 if not, which makes it a health check for containers whose image has no shell.`,
		Example: "  flotilla health\n  flotilla health --brokers 10.0.0.1:7070,10.0.0.2:7070 --timeout 2s -o json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runHealth(cmd.Context())
		},
	}
}

func (a *app) runHealth(ctx context.Context) error {
	var all []brokerHealth
	serving := 0
	for _, addr := range a.brokers {
		h := a.askHealth(ctx, addr)
		if h.Status == healthpb.HealthCheckResponse_SERVING.String() {
			serving++
		}
		all = append(all, h)
	}
	err := a.emit(all, func(w io.Writer) {
		for _, h := range all {
			fmt.Fprintf(w, "%s %s", h.Broker, h.Status)
			if h.Error != "" {
				fmt.Fprintf(w, " (%s)", h.Error)
			}
			fmt.Fprintln(w)
		}
	})
	if err == nil && serving < len(all) {
		err = withCode(exitUnhealthy, fmt.Errorf("%d of %d broker(s) serving", serving, len(all)))
	}
	return err
}

func (a *app) askHealth(ctx context.Context, addr string) brokerHealth {
	h := brokerHealth{Broker: addr, Status: "UNREACHABLE"}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		h.Error = err.Error()
		return h
	}
	defer func() { _ = conn.Close() }()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		h.Error = err.Error()
		return h
	}
	h.Status = resp.GetStatus().String()
	return h
}
