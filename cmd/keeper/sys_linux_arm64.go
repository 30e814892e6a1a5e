package main

// System call numbers that package syscall does not name.
const (
	sysSetns   = 268
	sysSeccomp = 277
)
