package layering

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/flotilla-log/flotilla"

// rule says what packages may import of this module. Patterns are paths within the module; one that ends in /... covers everything
// at and below its folder.
type rule struct {
	of  string
	may []string
}

// rules are tried from the top; the first whose pattern covers a package applies to it. A package that no rule covers fails the test, so
// that a new folder gets its place by decision.
var rules = []rule{
	{of: "proto/record/...", may: []string{"proto/record/..."}},
	{of: "proto/flotilla/...", may: []string{"proto/flotilla/..."}},

	// raftlog knows no topics: it stores Raft entries and, of their contents, record batches.
	{of: "raftlog/vfs/...", may: []string{"raftlog/vfs/..."}},
	{of: "raftlog/...", may: []string{"raftlog/...", "proto/record/..."}},

	// partition knows no brokers, only Raft server addresses; its transport and stable store know no partitions.
	{of: "partition/transport/...", may: []string{"partition/transport/...", "proto/record/crc"}},
	{of: "partition/stable/...", may: []string{"partition/stable/...", "partition/transport/..."}},
	{of: "partition/...", may: []string{"partition/...", "raftlog/...", "proto/record/..."}},

	// membership knows no Raft.
	{of: "membership/...", may: []string{"membership/..."}},

	// The broker's interface is plain Go types, and its front ends are adapters on that which never import one another.
	{of: "broker/api/...", may: []string{"broker/api/...", "proto/record/..."}},
	{of: "broker/grpcapi/...", may: []string{"broker/grpcapi/...", "broker/api/...", "proto/..."}},
	{of: "broker/kafka/...", may: []string{"broker/kafka/...", "broker/api/...", "proto/record/..."}},
	{of: "broker/metrics/...", may: []string{"broker/metrics/...", "broker/api/...", "proto/record/..."}},
	// Consumer groups are a state machine that partition runs without either knowing the other; they share raftlog's index type.
	{of: "broker/group/...", may: []string{"broker/group/...", "broker/api/...", "raftlog", "proto/record/..."}},
	{of: "broker/metadata/...", may: []string{"broker/metadata/...", "broker/api/...", "partition/transport/...", "partition/stable/boltfile", "raftlog/vfs/...", "proto/record/...", "membership/..."}},
	// The simulation is client, brokers and checker in one process.
	{of: "broker/brokertest/sim/...", may: []string{"broker/...", "partition/...", "raftlog/...", "membership/...", "proto/...", "client/...", "scripts/chaos/history", "scripts/chaos/checker"}},
	{of: "broker/...", may: []string{"broker/...", "partition/...", "raftlog/...", "membership/...", "proto/..."}},

	// The client knows the protocol and nothing of what is behind it.
	{of: "client/...", may: []string{"client/...", "proto/..."}},

	{of: "cmd/...", may: []string{"cmd/...", "broker/...", "client/...", "raftlog/...", "proto/..."}},
	// Chaos runs read and damage the files of stopped brokers.
	{of: "scripts/chaos/...", may: []string{"scripts/...", "client/...", "raftlog/...", "proto/..."}},
	{of: "scripts/...", may: []string{"scripts/...", "client/...", "proto/..."}},
}

// goPackage is what the test needs of `go list -json`.
type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestImportsPointTheRightWay(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages only", len(packages))
	}
	for _, p := range packages {
		for _, problem := range check(p) {
			t.Error(problem)
		}
	}
}

// TestRulesCanFail shows that the check finds what it is there for.
func TestRulesCanFail(t *testing.T) {
	for _, c := range []struct {
		of, imports string
		bad         bool
	}{
		{"raftlog", "raftlog/vfs", false},
		{"raftlog/vfs", "raftlog", true},
		{"raftlog", "partition", true},
		{"client", "broker/api", true},
		{"client", "proto/flotilla/v1", false},
		{"broker/grpcapi", "broker", true},
		{"broker/kafka", "broker/grpcapi", true},
		{"broker/metrics", "broker/kafka", true},
		{"broker/group", "partition", true},
		{"partition", "broker/api", true},
		{"membership", "proto/record", true},
		{"broker", "client", true},
		{"cmd/flotilla", "client", false},
		{"surprise", "client", true},
		{"raftlogs", "raftlog", true},
	} {
		p := goPackage{ImportPath: module + "/" + c.of, Imports: []string{"fmt", module + "/" + c.imports}}
		if problems := check(p); (len(problems) > 0) != c.bad {
			t.Errorf("%s importing %s: problems %v, want some: %t", c.of, c.imports, problems, c.bad)
		}
	}
}

func check(p goPackage) []string {
	path, _ := inModule(p.ImportPath)
	i := slices.IndexFunc(rules, func(r rule) bool { return covers(r.of, path) })
	if i < 0 {
		return []string{"no rule covers package " + p.ImportPath + ": give it its place in scripts/layering"}
	}
	var problems []string
	for _, imported := range p.Imports {
		to, ours := inModule(imported)
		if ours && !slices.ContainsFunc(rules[i].may, func(pattern string) bool { return covers(pattern, to) }) {
			problems = append(problems, path+" must not import "+to)
		}
	}
	return problems
}

func inModule(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

func covers(pattern, path string) bool {
	folder, all := strings.CutSuffix(pattern, "/...")
	return path == folder || all && strings.HasPrefix(path, folder+"/")
}

// listPackages lists the packages of the module without their tests, which may import more: a harness needs the layers above.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", module+"/...")
	cmd.Dir = "../.."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath != module { // the root holds no code
			packages = append(packages, p)
		}
	}
}
