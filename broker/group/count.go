package group

// Count tells how many groups there are, by the name of their state, and how many members they have; nothing unless the coordinator serves.
func (c *Coordinator) Count() (byState map[string]int, members int) {
	t, err := c.lead()
	if err != nil {
		return nil, 0
	}
	byState = map[string]int{}
	t.machine.mu.RLock()
	defer t.machine.mu.RUnlock()
	for _, g := range t.machine.groups {
		byState[g.state.String()]++
		members += len(g.members)
	}
	return byState, members
}
