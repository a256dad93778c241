package partition

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata")

// runTraces runs each testdata/pattern as a story: lines of commands, "----", what they print, an empty line. "#" begins a comment line. Each file runs in a synctest
// bubble: time is virtual, and between commands everything comes to rest.
func runTraces(t *testing.T, pattern string, story func(t *testing.T) func(cmd traceCommand) string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no traces match %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runTrace(t, file, story(t)) })
		})
	}
}

func runTrace(t *testing.T, file string, do func(traceCommand) string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for i, block := range strings.Split(strings.TrimRight(string(text), "\n"), "\n\n") {
		if i > 0 {
			out.WriteString("\n")
		}
		runBlock(&out, block, do)
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if out.String() != string(text) {
		t.Errorf("%s differs (run with -update to accept):\n%s", file, diff(string(text), out.String()))
	}
}

func runBlock(out *strings.Builder, block string, do func(traceCommand) string) {
	in, _, isCommand := strings.Cut(block+"\n", "----\n")
	out.WriteString(in)
	if !isCommand {
		return
	}
	out.WriteString("----\n")
	for _, line := range strings.Split(strings.TrimSpace(in), "\n") {
		if line != "" && !strings.HasPrefix(line, "#") {
			if got := strings.TrimRight(do(parseTrace(line)), "\n"); got != "" {
				out.WriteString(got + "\n")
			}
		}
	}
}

// traceCommand is "name key=value ...".
type traceCommand struct {
	name string
	args map[string]string
}

func parseTrace(line string) traceCommand {
	fields := strings.Fields(line)
	c := traceCommand{name: fields[0], args: map[string]string{}}
	for _, f := range fields[1:] {
		k, v, _ := strings.Cut(f, "=")
		c.args[k] = v
	}
	return c
}

func (c traceCommand) num(key string, def int64) int64 {
	v, ok := c.args[key]
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("%s: %s=%s: %v", c.name, key, v, err))
	}
	return n
}

func (c traceCommand) has(key string) bool { _, ok := c.args[key]; return ok }

// diff shows the first differing lines.
func diff(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant: %s\ngot:  %s\n\nall of it:\n%s", i+1, at(w, i), at(g, i), got)
		}
	}
	return ""
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
