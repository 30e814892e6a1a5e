package container

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What statmount(2) is asked for, and where its answer has it: linux/mount.h.
const (
	statmountOptions = 0x80 // STATMOUNT_MNT_OPTS
	statmountAt      = 4    // mnt_opts, the offset of the options among the strings
	statmountMask    = 8    // mask, what there is in the answer
	statmountStrings = 512  // str
	statmountSize    = 2048
)

// mountAsked is struct mnt_id_req in its first version.
type mountAsked struct {
	size, _  uint32
	id, want uint64
}

// optionsAt are those of the file system that is mounted on a directory, without
// those of the mount itself. ok is false where the kernel doesn't tell.
func optionsAt(dir string) (options string, ok bool) {
	var stat unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, dir, unix.AT_NO_AUTOMOUNT, unix.STATX_MNT_ID_UNIQUE, &stat)
	if err != nil || stat.Mask&unix.STATX_MNT_ID_UNIQUE == 0 {
		return "", false
	}
	ask := mountAsked{id: stat.Mnt_id, want: statmountOptions}
	ask.size = uint32(unsafe.Sizeof(ask))
	var answer [statmountSize]byte
	_, _, e := unix.Syscall6(unix.SYS_STATMOUNT, uintptr(unsafe.Pointer(&ask)), uintptr(unsafe.Pointer(&answer)), statmountSize, 0, 0, 0)
	if e != 0 || binary.NativeEndian.Uint64(answer[statmountMask:])&statmountOptions == 0 {
		return "", false
	}
	at := statmountStrings + int(binary.NativeEndian.Uint32(answer[statmountAt:]))
	if at >= len(answer) {
		return "", false
	}
	text, _, ok := bytes.Cut(answer[at:], []byte{0})
	return string(text), ok
}
