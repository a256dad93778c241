//go:build !linux

package main

import (
	"errors"
	"syscall"

	"github.com/flotilla-log/flotilla/scripts/procs"
)

func namespaced() bool { return false }

func enterNamespaces() error { return errors.New("this is not Linux") }

// network is there on Linux only.
type network struct{}

func newNetwork(int) (*network, error)                { return nil, errors.ErrUnsupported }
func (n *network) wrap(_ int, argv []string) []string { return argv }
func (n *network) hosts(int) procs.Addresses          { return procs.Addresses{} }
func (n *network) cut(int, int) error                 { return errors.ErrUnsupported }
func (n *network) mend(int, int) error                { return errors.ErrUnsupported }
func (n *network) lose(int, int, int) error           { return errors.ErrUnsupported }
func (n *network) loseNothing() (int, error)          { return 0, errors.ErrUnsupported }
func (n *network) slow(int, string) error             { return errors.ErrUnsupported }
func (n *network) fast(int) error                     { return errors.ErrUnsupported }
func (n *network) close()                             {}
func mountSmall(string, int64) error                  { return errors.ErrUnsupported }
func unmount(string) error                            { return errors.ErrUnsupported }

const (
	signalStop     = syscall.SIGSTOP
	signalContinue = syscall.SIGCONT
)
