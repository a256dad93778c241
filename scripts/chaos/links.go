package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/flotilla-log/flotilla/scripts/measure"
)

// lossy makes links between brokers lose some of the packets, in both directions, each round more of them.
func lossy(ctx context.Context, e *env) error {
	percent := []int{2, 10, 30}[e.rounds%3]
	err := e.fault(ctx, fmt.Sprintf("%d %% lost", percent), nobody, func() error {
		return e.lose(ctx, 6*time.Second, percent, e.everyLink())
	})
	return errors.Join(err, measure.Pause(ctx, 3*time.Second))
}

// lossyLeader makes half of what a leader sends to its peers get lost; what they send arrives.
func lossyLeader(ctx context.Context, e *env) error {
	i := e.victim(ctx)
	err := e.fault(ctx, "50 % of what it sends lost", i, func() error {
		return e.lose(ctx, 6*time.Second, 50, e.linksFrom(i))
	})
	return errors.Join(err, measure.Pause(ctx, 4*time.Second))
}

type link struct{ from, to int }

func (e *env) linksFrom(i int) []link {
	var links []link
	for j := range startingBrokers {
		if j != i {
			links = append(links, link{i, j})
		}
	}
	return links
}

func (e *env) everyLink() []link {
	var links []link
	for i := range startingBrokers {
		links = append(links, e.linksFrom(i)...)
	}
	return links
}

func (e *env) lose(ctx context.Context, d time.Duration, percent int, links []link) error {
	var errs []error
	for _, l := range links {
		errs = append(errs, e.net.lose(l.from, l.to, percent))
	}
	errs = append(errs, measure.Pause(ctx, d))
	lost, err := e.net.loseNothing()
	e.struck += lost
	return errors.Join(append(errs, err)...)
}

// slow gives brokers little bandwidth to their peers, with a queue: packets are late, and lost when the queue is full.
func slow(name string, victims func(*env, context.Context) []int, rate string) func(context.Context, *env) error {
	return func(ctx context.Context, e *env) error {
		chosen := victims(e, ctx)
		victim := nobody
		if len(chosen) == 1 {
			victim = chosen[0]
		}
		err := e.fault(ctx, name, victim, func() error {
			var errs []error
			for _, i := range chosen {
				errs = append(errs, e.net.slow(i, rate))
			}
			errs = append(errs, measure.Pause(ctx, 6*time.Second))
			for _, i := range chosen {
				errs = append(errs, e.net.fast(i))
			}
			return errors.Join(errs...)
		})
		return errors.Join(err, measure.Pause(ctx, 4*time.Second))
	}
}

func everyBroker(*env, context.Context) []int { return []int{0, 1, 2} }

func oneLeader(e *env, ctx context.Context) []int { return []int{e.victim(ctx)} }
