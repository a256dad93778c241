package main

import (
	"errors"
	"fmt"
	"slices"
)

const (
	// growth is how much more the last third of a phase may take than the second, beside slack.
	growth = 1.15
	slack  = 48.0 // MB: garbage that has not been collected yet
	// bound is what no broker may reach in any phase, in MB: its buffers for requests and responses are some hundreds altogether.
	bound = 1500.0
)

var errGrows = errors.New("memory grows")

// judge prints a phase and fails it if memory grew between its second and its last third, or reached the bound.
func (r *rig) judge(name string, samples []float64) error {
	if len(samples) < 6 {
		return fmt.Errorf("only %d samples", len(samples))
	}
	third := len(samples) / 3
	second, last, most := middle(samples[third:2*third]), middle(samples[2*third:]), slices.Max(samples)
	fmt.Fprintf(r.out, "%-44s %10.0f %10.0f %10.0f %10.0f\n", name, samples[0], second, last, most)
	if last > second*growth+slack {
		return fmt.Errorf("%w: from %.0f to %.0f MB", errGrows, second, last)
	}
	if most > bound {
		return fmt.Errorf("%w: to %.0f MB", errGrows, most)
	}
	return nil
}

func middle(samples []float64) float64 {
	s := slices.Sorted(slices.Values(samples))
	return s[len(s)/2]
}
