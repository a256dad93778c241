// Command flotilla is all of Flotilla in one binary: the broker, a cluster for development, and the command line to both.
//
// main only calls run. Every subcommand has a file of its own; what several of them share is in app.go (streams and options),
// config.go (file and environment), exit.go (exit codes) and output.go (text and JSON).
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end; a second one gets the default behaviour, which is to die at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
