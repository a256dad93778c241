package conformance

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// report is what the run found out, for the tables that it prints at its end.
var report struct {
	mu       sync.Mutex
	features map[string]map[string]string // by client and feature
	admin    map[string]map[string]string // by client and operation
	notes    []string
}

// columns are the features, in the order of the table.
var columns = []string{"compression", "group of three", "resume", "seek", "admin", "leader kill"}

// feature runs one part of a client's test and notes its result: f returns what the table says if all is well.
func feature(t *testing.T, client, name string, f func(*testing.T) string) {
	var cell string
	if !t.Run(name, func(t *testing.T) { cell = f(t) }) {
		cell = "FAILED"
	}
	report.mu.Lock()
	defer report.mu.Unlock()
	set(&report.features, client, name, cell)
}

func set(table *map[string]map[string]string, client, column, cell string) {
	if *table == nil {
		*table = map[string]map[string]string{}
	}
	if (*table)[client] == nil {
		(*table)[client] = map[string]string{}
	}
	(*table)[client][column] = cell
}

// noteOperation notes what came of an admin operation.
func noteOperation(client, operation, cell string) {
	report.mu.Lock()
	defer report.mu.Unlock()
	set(&report.admin, client, operation, cell)
}

// note adds a line below the tables, such as which client did not run and why.
func note(format string, args ...any) {
	report.mu.Lock()
	defer report.mu.Unlock()
	report.notes = append(report.notes, fmt.Sprintf(format, args...))
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "conformance-")
	if err == nil {
		defer func() { _ = os.RemoveAll(dir) }()
		binary, err = buildBinary(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	printReport()
	return code
}

func printReport() {
	fmt.Println()
	clients := slices.Sorted(maps.Keys(report.features))
	var rows [][]string
	for _, c := range clients {
		row := []string{c}
		for _, col := range columns {
			row = append(row, report.features[c][col])
		}
		rows = append(rows, row)
	}
	printTable(append([]string{"client"}, columns...), rows)
	clients = slices.Sorted(maps.Keys(report.admin))
	rows = nil
	for _, op := range operations {
		row := []string{op.name}
		for _, c := range clients {
			row = append(row, report.admin[c][op.name])
		}
		rows = append(rows, row)
	}
	fmt.Println()
	printTable(append([]string{"admin operation"}, clients...), rows)
	fmt.Println()
	for _, n := range report.notes {
		fmt.Println(n)
	}
}

func printTable(head []string, rows [][]string) {
	fmt.Printf("| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, row := range rows {
		for i, cell := range row {
			if cell == "" {
				row[i] = "-"
			}
		}
		fmt.Printf("| %s |\n", strings.Join(row, " | "))
	}
}
