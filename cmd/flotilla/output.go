package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

// The output formats. Raw is for consume alone.
const (
	outputText = "text"
	outputJSON = "json"
	outputRaw  = "raw"
)

// annotationFormats on a command lists further output formats, separated by commas.
const annotationFormats = "flotilla_formats"

func outputFormats(cmd *cobra.Command) []string {
	formats := []string{outputText, outputJSON}
	if more := cmd.Annotations[annotationFormats]; more != "" {
		formats = append(formats, strings.Split(more, ",")...)
	}
	return formats
}

func contains(list []string, s string) bool { return slices.Contains(list, s) }

func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// writeJSON writes one value on one line. Angle brackets and ampersands stay as they are: this is not HTML.
func writeJSON(w io.Writer, v any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// emit writes v as JSON, or lets text write it for people.
func (a *app) emit(v any, text func(w io.Writer)) error {
	if a.output == outputJSON {
		return writeJSON(a.stdout, v)
	}
	var buf bytes.Buffer
	text(&buf)
	_, err := a.stdout.Write(buf.Bytes())
	return err
}

// table is text in columns.
type table struct {
	rows [][]string
}

func newTable(header ...string) *table { return &table{rows: [][]string{header}} }

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

func (t *table) write(w io.Writer) {
	var buf bytes.Buffer
	tw := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	for _, row := range t.rows {
		fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush()
	for line := range strings.Lines(buf.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// dash stands where a cell would be empty.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// known shows an int64 that is -1 where it could not be learnt.
func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func knownBytes(n int64) string {
	if n < 0 {
		return "-"
	}
	return humanize.IBytes(uint64(n))
}

func brokerName(id int32) string {
	if id < 0 {
		return "none"
	}
	return fmt.Sprint(id)
}

func joinInts(ids []int32) string {
	parts := make([]string, len(ids))
	for i, id := range ids {
		parts[i] = fmt.Sprint(id)
	}
	return dash(strings.Join(parts, ","))
}

// formatMillis shows Unix milliseconds as a UTC time.
func formatMillis(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func perSecond(n float64, d time.Duration) float64 {
	if d <= 0 {
		return 0
	}
	return n / d.Seconds()
}

// orEmpty makes a nil list an empty one, which JSON shows as [] and not as null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
