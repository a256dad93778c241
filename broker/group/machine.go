package group

import "github.com/hashicorp/go-hclog"

// Machine is the replicated state machine of one coordinator partition. It satisfies partition.Machine.
type Machine struct{}

// NewMachine returns a machine without groups.
func NewMachine(logger hclog.Logger) *Machine { return &Machine{} }
