package conformance

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// report is what the run found out, for the table that it prints at its end.
var report struct {
	mu      sync.Mutex
	results map[string]map[string]string
	notes   []string
}

// columns are the features, in the order of the table.
var columns = []string{"compression", "group", "resume", "seek", "admin", "leader kill", "old versions", "both front ends", "autocreate"}

// feature runs one part of a client's test and notes its result.
func feature(t *testing.T, client, name string, f func(*testing.T)) {
	ok := t.Run(name, f)
	note(client, name, ok)
}

func note(client, name string, ok bool) {
	report.mu.Lock()
	defer report.mu.Unlock()
	if report.results == nil {
		report.results = map[string]map[string]string{}
	}
	if report.results[client] == nil {
		report.results[client] = map[string]string{}
	}
	report.results[client][name] = map[bool]string{true: "ok", false: "FAILED"}[ok]
}

// absent notes a client that this machine does not have.
func absent(client, why string) {
	report.mu.Lock()
	defer report.mu.Unlock()
	report.notes = append(report.notes, fmt.Sprintf("not run: %s: %s", client, why))
}

func TestMain(m *testing.M) {
	code := m.Run()
	printReport()
	os.Exit(code)
}

func printReport() {
	var clients []string
	for c := range report.results {
		clients = append(clients, c)
	}
	slices.Sort(clients)
	fmt.Printf("\n| client | %s |\n|---|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	for _, c := range clients {
		row := []string{c}
		for _, col := range columns {
			r := report.results[c][col]
			if r == "" {
				r = "-"
			}
			row = append(row, r)
		}
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
	for _, n := range report.notes {
		fmt.Println(n)
	}
}
