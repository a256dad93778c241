package metadata

import "github.com/hashicorp/go-hclog"

// quietLogger turns Raft's frequent INFO lines into DEBUG lines: elections and snapshots are everyday business of many groups.
type quietLogger struct{ hclog.Logger }

func quiet(l hclog.Logger) hclog.Logger { return quietLogger{l} }

// Info logs at DEBUG.
func (q quietLogger) Info(msg string, args ...any) { q.Logger.Debug(msg, args...) }

// Log is for callers that give the level as a value.
func (q quietLogger) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Info {
		level = hclog.Debug
	}
	q.Logger.Log(level, msg, args...)
}

// Named keeps the wrapper.
func (q quietLogger) Named(name string) hclog.Logger { return quietLogger{q.Logger.Named(name)} }

// With keeps the wrapper.
func (q quietLogger) With(args ...any) hclog.Logger { return quietLogger{q.Logger.With(args...)} }
