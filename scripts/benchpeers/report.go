package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// better says which way a figure is better.
type better bool

const (
	more  better = true
	fewer better = false
)

// report collects figures; a row of the table is what was measured, a column who was measured.
type report struct {
	order   []string
	figures map[string]*figure
}

type figure struct {
	label, unit string
	better      better
	samples     map[string][]float64 // by candidate
}

func newReport() *report { return &report{figures: map[string]*figure{}} }

func (r *report) add(candidate, label, unit string, b better, value float64) {
	f := r.figures[label]
	if f == nil {
		f = &figure{label: label, unit: unit, better: b, samples: map[string][]float64{}}
		r.figures[label] = f
		r.order = append(r.order, label)
	}
	f.samples[candidate] = append(f.samples[candidate], value)
}

func median(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// cell shows a median and, of several samples, the smallest and the largest.
func cell(samples []float64) string {
	switch len(samples) {
	case 0:
		return ""
	case 1:
		return show(samples[0])
	}
	return fmt.Sprintf("%s (%s to %s)", show(median(samples)), show(slices.Min(samples)), show(slices.Max(samples)))
}

// show keeps three digits.
func show(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1000:
		return thousands(int64(math.Round(v)))
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// write prints the table in Markdown. The ratios say how many times better the first candidate is than each other.
func (r *report) write(w io.Writer, candidates []string) {
	head := []string{"median (smallest to largest)", "unit"}
	head = append(head, candidates...)
	for _, c := range candidates[1:] {
		head = append(head, "times better than "+c)
	}
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(head, " | "), strings.Repeat("---|", len(head)))
	for _, label := range r.order {
		f := r.figures[label]
		line := []string{f.label, f.unit}
		for _, c := range candidates {
			line = append(line, cell(f.samples[c]))
		}
		for _, c := range candidates[1:] {
			line = append(line, f.ratio(candidates[0], c))
		}
		fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | "))
	}
}

// ratio of the medians, turned so that more than 1 is in favour of a.
func (f *figure) ratio(a, b string) string {
	x, y := f.samples[a], f.samples[b]
	if len(x) == 0 || len(y) == 0 {
		return ""
	}
	p, q := median(x), median(y)
	if f.better == fewer {
		p, q = q, p
	}
	if q == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", p/q)
}
