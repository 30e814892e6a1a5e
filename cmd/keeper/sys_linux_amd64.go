package main

// System call numbers that package syscall does not name.
const (
	sysSetns   = 308
	sysSeccomp = 317
)
