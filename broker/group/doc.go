// Package group coordinates consumer groups: Kafka's classic group protocol, with all of its state replicated.
//
// Three layers, each usable without the next:
//
//   - The step core (Event, Group and their step functions) is pure: given a group and an event it changes the group and says
//     what happened. It reads no clock and draws no random number; member IDs and times come with the events.
//   - Machine keeps all groups of one coordinator partition and is that partition's replicated state machine: it decodes
//     commands, steps, and writes and reads checkpoints. It runs on every replica.
//   - Coordinator serves members' calls on the partition's leader: it proposes events, waits for their outcome, and keeps the
//     deadlines (sessions, join and sync phases), which are not replicated: a new leader starts them afresh.
//
// README.md has the states, the argument why a failover loses no commit and forces no rebalance, and the limits.
package group
