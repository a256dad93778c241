package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestMain keeps the FLOTILLA_* variables of whoever runs the tests away from them.
func TestMain(m *testing.M) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "FLOTILLA_") {
			_ = os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// result is what a run left.
type result struct {
	code           int
	stdout, stderr string
}

func runCLI(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

func TestUsageErrors(t *testing.T) {
	for _, c := range []struct {
		args string
		says string // on standard error
	}{
		{"frobnicate", `unknown command "frobnicate"`},
		{"tpic list", `did you mean "topic"?`},
		{"topic lst", `did you mean "list"?`},
		{"--frobnicate", "unknown flag: --frobnicate"},
		{"topic create", "needs TOPIC"},
		{"topic create a b", `"b" too many`},
		{"topic list x", "takes no arguments"},
		{"topic list -o yaml", `unknown output format "yaml": use text or json`},
		{"topic list -o raw", `unknown output format "raw": use text or json`},
		{"consume x -o yaml", "use text, json or raw"},
		{"topic list --timeout 0s", "--timeout is 0s"},
		{"topic list --timeout soon", "invalid argument"},
		{"topic list --brokers ,", "empty address"},
		{"topic create x --set retention.ms", "is not KEY=VALUE"},
		{"topic create x --set a=1 --set a=2", "given twice"},
		{"topic alter x", "nothing to change"},
		{"topic delete x", "say --yes"},
		{"topic delete-records x --partition 0", "--before are needed"},
		{"group delete g", "say --yes"},
		{"group reset-offsets g", `--to ""`},
		{"group reset-offsets g --to last:5", "use earliest, latest"},
		{"group reset-offsets g --to shift:x", "is not a number"},
		{"group reset-offsets g --to earliest --partitions 1", "exactly one topic"},
		{"cluster decommission one", "is no broker ID"},
		{"cluster decommission -- -1", "is no broker ID"},
		{"produce x --key-json a --key-separator :", "exclude one another"},
		{"produce x --key-regex (", "--key-regex"},
		{"produce x --key-json a..b", "empty field name"},
		{"produce x --key-separator \\q", "unknown escape"},
		{"produce x --on-error ignore", "use stop or skip"},
		{"produce x --compression best", "--compression"},
		{"produce x --header novalue", "is not NAME=VALUE"},
		{"produce x --partition -2", "--partition is -2"},
		{"produce x --max-line-bytes 1GB", "--max-line-bytes"},
		{"produce x --max-line-bytes many", "is not a size"},
		{"produce x --file /nonexistent/file", "no such file"},
		{"consume x --from middle", "use earliest, latest, offset:N"},
		{"consume x --from offset:-3", "must not be negative"},
		{"consume x --from time:yesterday", "neither RFC 3339"},
		{"consume x --until count:0", "at least 1"},
		{"consume x --until never", "use end, count:N or forever"},
		{"consume x --count 3 --until count:3", "exclude one another"},
		{"consume x --group g --partitions 1", "exclude one another"},
		{"consume x --group g --from offset:3", "does not go with --group"},
		{"consume x --instance-id i", "need --group"},
		{"consume x --format %q", "unknown %q"},
		{"consume x --format %s -o json", "exclude one another"},
		{"bench latency --rate 0", "must be more than 0"},
		{"bench produce --record-bytes 3", "at least 16"},
		{"bench produce --broker-pids x", "is no process ID"},
		{"bench produce a b", "takes one topic"},
		{"log dump", "needs DIR"},
		{"log dump d --from-index 5 --to-index 3", "is before"},
		{"dev --port-base 65530", "--port-base"},
		{"dev --dir=", "--dir is empty"},
		{"dev --log-level loud", "unknown log level"},
		{"broker --log-format xml --id 1 --data-dir d", "unknown log format"},
		{"broker --data-dir d", "broker ID"},
		{"broker --id 1", "data directory"},
		{"broker --id 1 --data-dir d --join nowhere", "is not host:port"},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := runCLI(t, "", strings.Fields(c.args)...)
			if got.code != exitUsage {
				t.Errorf("exit code %d, want %d", got.code, exitUsage)
			}
			if !strings.Contains(got.stderr, c.says) {
				t.Errorf("standard error %q does not say %q", got.stderr, c.says)
			}
			if got.stdout != "" {
				t.Errorf("standard output %q", got.stdout)
			}
		})
	}
}

// TestNoBroker: nobody listens on a port that was just given back.
func TestNoBroker(t *testing.T) {
	addrs, err := freeAddresses()
	if err != nil {
		t.Fatal(err)
	}
	got := runCLI(t, "", "topic", "list", "--brokers", addrs[0].grpc, "--timeout", "300ms")
	if got.code != exitUnavailable || !strings.Contains(got.stderr, "refused") {
		t.Errorf("exit code %d, standard error %q", got.code, got.stderr)
	}
	got = runCLI(t, "", "health", "--brokers", addrs[0].grpc, "--timeout", "300ms", "-o", "json")
	var health []brokerHealth
	if err := json.Unmarshal([]byte(got.stdout), &health); err != nil {
		t.Fatalf("%v: %q", err, got.stdout)
	}
	if got.code != exitUnhealthy || len(health) != 1 || health[0].Status != "UNREACHABLE" {
		t.Errorf("exit code %d, %+v", got.code, health)
	}
	var report errorReport
	if err := json.Unmarshal([]byte(got.stderr), &report); err != nil || report.ExitCode != exitUnhealthy {
		t.Errorf("standard error %q: %+v, %v", got.stderr, report, err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout, stderr bytes.Buffer
	code := run(ctx, []string{"topic", "list", "--brokers", "127.0.0.1:1"}, strings.NewReader(""), &stdout, &stderr)
	if code != exitInterrupted || !strings.Contains(stderr.String(), "interrupted") {
		t.Errorf("exit code %d, standard error %q", code, stderr.String())
	}
}

// TestEveryCommandHelps walks the whole tree: each command has a help text with an example, and no option lacks a description.
func TestEveryCommandHelps(t *testing.T) {
	root := (&app{}).rootCommand()
	var leaves int
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if isCompletion(cmd) || cmd.Name() == "help" {
			return
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
		path := strings.Fields(cmd.CommandPath())[1:]
		got := runCLI(t, "", append(path, "--help")...)
		if got.code != exitOK || !strings.Contains(got.stdout, "Examples:\n") || !strings.Contains(got.stdout, "Usage:") {
			t.Errorf("%s --help: exit code %d, %q", cmd.CommandPath(), got.code, got.stdout)
		}
		if !strings.Contains(cmd.Example, cmd.CommandPath()) {
			t.Errorf("%s: its example does not use it: %q", cmd.CommandPath(), cmd.Example)
		}
		for _, o := range optionsOf(cmd) {
			if o.flag.Usage == "" {
				t.Errorf("%s --%s has no description", cmd.CommandPath(), o.flag.Name)
			}
		}
		if !cmd.HasSubCommands() {
			leaves++
		}
	}
	walk(root)
	if leaves < 20 {
		t.Errorf("only %d commands", leaves)
	}
}

func TestVersion(t *testing.T) {
	got := runCLI(t, "", "version")
	if got.code != exitOK || !strings.HasPrefix(got.stdout, "flotilla ") {
		t.Errorf("%+v", got)
	}
	got = runCLI(t, "", "version", "-o", "json")
	var v versionInfo
	if err := json.Unmarshal([]byte(got.stdout), &v); err != nil || v.Version == "" || v.Go == "" {
		t.Errorf("%q: %v", got.stdout, err)
	}
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := runCLI(t, "", "completion", shell); got.code != exitOK || len(got.stdout) < 1000 {
			t.Errorf("%s: exit code %d, %d bytes", shell, got.code, len(got.stdout))
		}
	}
	got := runCLI(t, "", "__complete", "topic", "")
	if got.code != exitOK || !strings.Contains(got.stdout, "describe") {
		t.Errorf("%+v", got)
	}
}

func TestLogCommandsWithoutLog(t *testing.T) {
	dir := t.TempDir()
	if got := runCLI(t, "", "log", "verify", dir); got.code != exitNotFound || !strings.Contains(got.stderr, "no log here or below") {
		t.Errorf("an empty directory: %+v", got)
	}
	if got := runCLI(t, "", "log", "dump", filepath.Join(dir, "missing")); got.code != exitNotFound {
		t.Errorf("a missing directory: %+v", got)
	}
}

func TestConfigPrecedence(t *testing.T) {
	file := filepath.Join(t.TempDir(), "flotilla.yaml")
	write(t, file, "brokers: [\"file:1\"]\ntopic:\n  create:\n    partitions: 3\n    replication-factor: 2\n    set: [\"a=1\", \"b=x,y\"]\nbroker:\n  inflight-bytes: 256MiB\n")
	for _, c := range []struct {
		name       string
		args       []string
		env        map[string]string
		brokers    string
		partitions string
		set        string
	}{
		{"default", nil, nil, "[127.0.0.1:7070]", "0", "[]"},
		{"file", []string{"--config", file}, nil, "[file:1]", "3", `[a=1,"b=x,y"]`},
		{"file by variable", nil, map[string]string{"FLOTILLA_CONFIG": file}, "[file:1]", "3", `[a=1,"b=x,y"]`},
		{
			"environment over file",
			[]string{"--config", file},
			map[string]string{"FLOTILLA_TOPIC_CREATE_PARTITIONS": "4", "FLOTILLA_BROKERS": "env:1,env:2"},
			"[env:1,env:2]", "4", `[a=1,"b=x,y"]`,
		},
		{
			"flag over all",
			[]string{"--config", file, "--partitions", "5", "--brokers", "flag:1", "--set", "c=2"},
			map[string]string{"FLOTILLA_TOPIC_CREATE_PARTITIONS": "4", "FLOTILLA_BROKERS": "env:1"},
			"[flag:1]", "5", "[c=2]",
		},
		{"empty variables do not count", nil, map[string]string{"FLOTILLA_BROKERS": ""}, "[127.0.0.1:7070]", "0", "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			cmd := settledCommand(t, append([]string{"topic", "create", "x"}, c.args...))
			for flag, want := range map[string]string{"brokers": c.brokers, "partitions": c.partitions, "set": c.set} {
				if got := cmd.Flags().Lookup(flag).Value.String(); got != want {
					t.Errorf("--%s is %s, want %s", flag, got, want)
				}
			}
		})
	}
}

// settledCommand parses args and applies environment and file, but does not run the command.
func settledCommand(t *testing.T, args []string) *cobra.Command {
	t.Helper()
	root := (&app{}).rootCommand()
	cmd, rest, err := root.Find(args)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Fatal(err)
	}
	if err := applySettings(cmd, environ()); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []struct {
		name, file, content string
		says                []string
	}{
		{"unknown key", "c.yaml", "brokres: [a:1]\n", []string{`unknown key "brokres"`, "did you mean brokers?"}},
		{"unknown keys are all told", "c.yaml", "one: 1\nbroker:\n  rak: x\n", []string{`unknown key "one"`, `unknown key "broker.rak"`, "broker.rack"}},
		{"a flag that is for the command line only", "c.yaml", "topic: {delete: {yes: true}}\n", []string{`unknown key "topic.delete.yes"`}},
		{"a section where a value belongs", "c.yaml", "timeout: {a: 1}\n", []string{`unknown key "timeout.a"`}},
		{"a value where a section belongs", "c.yaml", "broker: 5\n", []string{`unknown key "broker"`}},
		{"a list where a value belongs", "c.yaml", "timeout: [1s]\n", []string{"timeout", "not a list"}},
		{"a wrong value", "c.yaml", "timeout: soon\n", []string{"c.yaml", "timeout", "soon"}},
		{"no value", "c.yaml", "timeout:\n", []string{`key "timeout" has no value`}},
		{"a key twice", "c.yaml", "timeout: 1s\ntimeout: 2s\n", []string{"already"}},
		{"bad syntax", "c.yaml", "timeout: [1s\n", []string{"c.yaml"}},
		{"bad json", "c.json", "{", []string{"c.json"}},
		{"toml", "c.toml", "rack = 1\n", []string{`unknown key "rack"`}},
		{"another format", "c.ini", "timeout=1s\n", []string{".yaml, .toml or .json"}},
		{"missing", "", "", []string{"no such file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "missing.yaml")
			if c.file != "" {
				file = filepath.Join(filepath.Dir(file), c.file)
				write(t, file, c.content)
			}
			got := runCLI(t, "", "version", "--config", file)
			if got.code != exitUsage {
				t.Errorf("exit code %d", got.code)
			}
			for _, want := range c.says {
				if !strings.Contains(got.stderr, want) {
					t.Errorf("standard error %q does not say %q", got.stderr, want)
				}
			}
		})
	}
}

func TestEnvironmentRefused(t *testing.T) {
	t.Setenv("FLOTILLA_BROKERRS", "a:1")
	got := runCLI(t, "", "version")
	if got.code != exitUsage || !strings.Contains(got.stderr, "unknown variable FLOTILLA_BROKERRS") || !strings.Contains(got.stderr, "FLOTILLA_BROKERS") {
		t.Errorf("%+v", got)
	}
}

func TestEnvironmentWrongValue(t *testing.T) {
	t.Setenv("FLOTILLA_TIMEOUT", "soon")
	got := runCLI(t, "", "topic", "list")
	if got.code != exitUsage || !strings.Contains(got.stderr, "variable FLOTILLA_TIMEOUT") {
		t.Errorf("%+v", got)
	}
}

// TestKubernetesServiceLinks: a service called flotilla puts variables into every pod that look like ours. They are left alone there, and
// only there.
func TestKubernetesServiceLinks(t *testing.T) {
	for _, name := range []string{
		"FLOTILLA_SERVICE_HOST", "FLOTILLA_SERVICE_PORT", "FLOTILLA_SERVICE_PORT_GRPC", "FLOTILLA_PORT", "FLOTILLA_PORT_7070_TCP",
		"FLOTILLA_PORT_7070_TCP_ADDR", "FLOTILLA_HEADLESS_SERVICE_HOST",
	} {
		t.Setenv(name, "10.0.0.1")
	}
	if got := runCLI(t, "", "version"); got.code != exitUsage {
		t.Errorf("outside of Kubernetes: %+v", got)
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
	if got := runCLI(t, "", "version"); got.code != exitOK {
		t.Errorf("in Kubernetes: %+v", got)
	}
	t.Setenv("FLOTILLA_SERVICE", "x")
	if got := runCLI(t, "", "version"); got.code != exitUsage {
		t.Errorf("an unknown variable in Kubernetes: %+v", got)
	}
}

// TestOptionNamesAreUnique: two options must not share a variable, and a key must not be the section of another.
func TestOptionNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	all := allOptions((&app{}).rootCommand())
	for _, o := range all {
		if other, twice := seen[o.env]; twice {
			t.Errorf("%s is both %s and %s", o.env, o.key, other)
		}
		seen[o.env] = o.key
		for _, p := range all {
			if strings.HasPrefix(p.key, o.key+".") {
				t.Errorf("key %s is a section of %s", o.key, p.key)
			}
		}
	}
}
