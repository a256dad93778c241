//go:build unix && !linux

package main

import "syscall"

// ownGroup keeps Ctrl-C at the terminal away from the brokers, since the demo ends them itself.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
