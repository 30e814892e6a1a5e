package main

// System call numbers that package syscall does not name.
const (
	sysSetns       = 268
	sysExecveat    = 281
	sysMemfdCreate = 279
	sysSeccomp     = 277

	sysSchedSetattr = 274
	sysSetMempolicy = 237
	sysIoprioSet    = 30
)
