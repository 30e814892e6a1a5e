package shortcut

const sysMemfdCreate = 319

// entry is no function: it has the stack that the kernel gives a program, and its
// name is the linker's to use. See entry_linux_amd64.s.
func entry()

var _ = entry
