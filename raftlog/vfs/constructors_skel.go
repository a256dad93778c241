package vfs

// OS is the real file system.
func OS() FS { return nil }
