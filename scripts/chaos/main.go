// Command chaos attacks a cluster of real broker processes and judges what its clients saw.
//
// Each scenario starts brokers of its own, lets producers, conditional appenders and consumer groups work on them, breaks something again and
// again, heals it, reads everything back (through the brokers, and from the files of every replica) and gives the history to
// scripts/chaos/checker. README.md has the scenarios and what they found.
//
//	go build -o bin/flotilla ./cmd/flotilla && go run ./scripts/chaos -flotilla bin/flotilla -scenario kill-leader -time 20s
//
// On Linux as root the brokers run in network namespaces of their own, inside one that nothing else can see; otherwise on loopback, without
// the scenarios that cut links or need a file system of their own.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	binary   string
	scenario string
	time     time.Duration
	seed     uint64
	repeat   int
	keep     string
	gaps     bool
}

func main() {
	var o options
	flag.StringVar(&o.binary, "flotilla", "bin/flotilla", "the flotilla binary")
	flag.StringVar(&o.scenario, "scenario", "all", "scenarios by name, separated by commas; all; or list")
	flag.DurationVar(&o.time, "time", 20*time.Second, "how long each scenario breaks things; a round that has begun is completed")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "of the choice of victims")
	flag.IntVar(&o.repeat, "repeat", 1, "how often each scenario is run, each time on a cluster of its own and with the next seed")
	flag.StringVar(&o.keep, "keep", "", "directory to which the brokers' logs are copied when a scenario fails")
	flag.BoolVar(&o.gaps, "gaps", false, "print every gap")
	flag.Parse()
	if err := enterNamespaces(); err != nil {
		fmt.Fprintln(os.Stderr, "chaos: no namespaces, so on loopback:", err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options, out io.Writer) error {
	chosen, err := choose(o.scenario)
	if err != nil {
		return err
	}
	if chosen == nil {
		for _, s := range scenarios {
			fmt.Fprintf(out, "%-22s %s\n", s.name, s.what)
		}
		return nil
	}
	var lines []*line
	var bad []string
	for _, s := range chosen {
		l := repeat(ctx, o, s, out)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		lines = append(lines, l)
		if !l.good() {
			bad = append(bad, s.name)
		}
	}
	printSummary(out, lines)
	if len(bad) > 0 {
		return errors.New("not good: " + strings.Join(bad, ", "))
	}
	return nil
}

// repeat runs a scenario as often as was asked for, each time with the next seed.
func repeat(ctx context.Context, o options, s scenario, out io.Writer) *line {
	l := &line{scenario: s}
	if l.notPossible = s.notPossible(); l.notPossible != "" {
		fmt.Fprintf(out, "%-22s not possible: %s\n", s.name, l.notPossible)
		return l
	}
	for range o.repeat {
		r, err := play(ctx, o, s, rand.New(rand.NewPCG(o.seed, 0)))
		if ctx.Err() != nil {
			return l
		}
		if r != nil {
			r.print(out)
			if o.gaps {
				printGaps(out, r.gaps)
			}
			l.add(r)
		}
		if err != nil {
			fmt.Fprintf(out, "%-22s ERROR    %v\n", s.name, err)
			l.bad++
		}
		o.seed++
	}
	l.judge()
	return l
}

// choose finds scenarios by name; none for "list".
func choose(names string) ([]scenario, error) {
	switch names {
	case "list":
		return nil, nil
	case "all", "":
		return scenarios, nil
	}
	var chosen []scenario
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no scenario %q; -scenario list prints them", name)
		}
		chosen = append(chosen, scenarios[i])
	}
	return chosen, nil
}
