package main

// System call numbers that package syscall does not name.
const (
	sysSetns       = 308
	sysExecveat    = 322
	sysMemfdCreate = 319
	sysSeccomp     = 317

	sysSchedSetattr = 314
	sysSetMempolicy = 238
	sysIoprioSet    = 251
)
