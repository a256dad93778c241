package main

import "syscall"

// ownGroup keeps Ctrl-C at the terminal away from the brokers, since the demo ends them itself, and has the kernel end them should the
// demo die without having been able to.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
