//go:build !linux

package procs

import (
	"errors"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

// Usage is there on Linux only.
func (c *Cluster) Usage(int) (Usage, error) { return Usage{}, errors.ErrUnsupported }

// UsageOf is there on Linux only.
func UsageOf(int) (Usage, error) { return Usage{}, errors.ErrUnsupported }
