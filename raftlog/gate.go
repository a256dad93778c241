package raftlog

// gate is a mutex for what is held during disk writes. Unlike with a sync.Mutex, waiting for it is a wait on a channel, so that in testing/synctest a clock
// may go on while one goroutine waits for a slow (simulated) disk and others wait for the gate.
type gate chan struct{}

func newGate() gate { return make(gate, 1) }

// Lock takes the gate.
func (g gate) Lock() { g <- struct{}{} }

// Unlock gives it back.
func (g gate) Unlock() { <-g }
