// Command suites runs clients' own test suites against a cluster of three broker processes. It judges them by their results and by a list of
// what must fail, with the reason: a test that fails without being on the list, or passes although it is, makes the run fail.
package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

// part is a run of go test over one package of a module's, as go.mod of this folder pins it.
type part struct {
	name    string
	module  string
	pkg     string // in the module
	run     string // which tests, as go test takes it
	skip    string // which not
	timeout time.Duration
	cluster procs.Config // how the brokers differ from three with Kafka listeners
	env     func(seeds string) []string
	must    expected
}

// expected says why a test fails, or is skipped by the suite itself.
type expected map[string]string

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("suites", flag.ContinueOnError)
	binary := flags.String("flotilla", "../../../bin/flotilla", "the flotilla command")
	records := flags.Int("records", 50000, "records that the larger tests produce and consume")
	kafkaGo := flags.Bool("kafka-go", false, "run kafka-go's tests, which want a broker at localhost:9092, in place of franz-go's")
	only := flags.String("run", "", "only tests of these names, a regular expression")
	verbose := flags.Bool("v", false, "print what the tests print")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "suites-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	var errs []error
	parts := kgoParts(*records)
	if *kafkaGo {
		parts = kafkaGoParts()
	}
	for _, p := range parts {
		if *only != "" {
			p.run = *only
		}
		errs = append(errs, p.test(ctx, *binary, dir, *verbose))
	}
	return errors.Join(errs...)
}

// test runs the part against a cluster of its own and prints what came of it.
func (p part) test(ctx context.Context, binary, dir string, verbose bool) error {
	src, err := copyModule(ctx, p.module, dir)
	if err != nil {
		return err
	}
	cfg := p.cluster
	cfg.Binary, cfg.Brokers, cfg.Kafka = binary, cmp.Or(cfg.Brokers, 3), true
	cfg.Extra = append([]string{"--fast-gossip", "--offsets-partitions", "3"}, cfg.Extra...)
	c, err := procs.NewCluster(cfg)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	starting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.StartAll(starting); err != nil {
		return err
	}
	results, err := p.goTest(ctx, src, strings.Join(c.KafkaAddrs(), ","), verbose)
	if err != nil {
		return err
	}
	return p.judge(results)
}

// copyModule copies a module from the module cache, where tests cannot be run, since it is read-only.
func copyModule(ctx context.Context, module, dir string) (string, error) {
	found, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("looking for %s: %w", module, err)
	}
	to := filepath.Join(dir, strings.ReplaceAll(module, "/", "_"))
	if _, err := os.Stat(to); err == nil {
		return to, nil
	}
	if err := os.CopyFS(to, os.DirFS(strings.TrimSpace(string(found)))); err != nil {
		return "", err
	}
	// Its go.sum need not have what only its tests need.
	tidy := exec.CommandContext(ctx, "go", "mod", "tidy")
	tidy.Dir = to
	if out, err := tidy.CombinedOutput(); err != nil {
		return "", fmt.Errorf("what the tests of %s need: %w: %s", module, err, out)
	}
	return to, nil
}

// event is a line of go test -json.
type event struct {
	Action, Test, Output string
	Elapsed              float64 // seconds
}

// result is what came of one test.
type result struct {
	action string // pass, fail or skip
	output []string
}

// goTest runs the tests and returns their results by name.
func (p part) goTest(ctx context.Context, src, seeds string, verbose bool) (map[string]*result, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout+time.Minute)
	defer cancel()
	args := []string{"test", "-json", "-count=1", "-timeout", p.timeout.String(), "-run", p.run}
	if p.skip != "" {
		args = append(args, "-skip", p.skip)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.pkg)...)
	cmd.Dir, cmd.Env, cmd.Stderr = src, append(os.Environ(), p.env(seeds)...), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	results, readErr := readEvents(out, verbose)
	_ = cmd.Wait() // it fails if a test does, which is for judge
	return results, errors.Join(readErr, ctx.Err())
}

func readEvents(out io.Reader, verbose bool) (map[string]*result, error) {
	results := map[string]*result{}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			fmt.Print(e.Output)
			continue
		}
		r := results[e.Test]
		if r == nil {
			r = &result{action: "unfinished"}
			results[e.Test] = r
		}
		switch e.Action {
		case "output":
			r.output = append(r.output, e.Output)
			if verbose {
				fmt.Print(e.Output)
			}
		case "pass", "fail", "skip":
			r.action = e.Action
			fmt.Printf("%s %s (%.1fs)\n", e.Action, e.Test, e.Elapsed)
		}
	}
	return results, lines.Err()
}

// judge compares the results with what is expected.
func (p part) judge(results map[string]*result) error {
	counts := map[string]int{}
	var surprises []error
	for name, r := range results {
		counts[r.action]++
		why, known := p.must[name]
		switch {
		case r.action == "pass" && known:
			surprises = append(surprises, fmt.Errorf("%s passes, although it is listed: %s", name, why))
		case r.action != "pass" && r.action != "skip" && !known:
			surprises = append(surprises, fmt.Errorf("%s: %s:\n%s", r.action, name, strings.Join(last(r.output, 30), "")))
		}
	}
	fmt.Printf("\n%s: %d passed, %d failed, %d skipped, %d unfinished\n", p.name, counts["pass"], counts["fail"], counts["skip"], counts["unfinished"])
	var names []string
	for name, r := range results {
		if r.action != "pass" {
			names = append(names, fmt.Sprintf("%s %s: %s", r.action, name, p.reason(name, r)))
		}
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Println(" ", n)
	}
	if len(results) == 0 {
		surprises = append(surprises, fmt.Errorf("%s: no test ran", p.name))
	}
	return errors.Join(surprises...)
}

// reason is why a test did not pass: what is known, or else what it said last.
func (p part) reason(name string, r *result) string {
	if why, ok := p.must[name]; ok {
		return why
	}
	for _, line := range slices.Backward(r.output) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") && !strings.HasPrefix(line, "===") {
			return line
		}
	}
	return "?"
}

func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }
