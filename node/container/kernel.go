package container

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelFits says that the kernel is too old for containers, if it is: Linux 5.12 brought
// mount_setattr(2), the youngest of the calls that each of them needs.
func KernelFits() error {
	return fits(unix.MountSetattr(-1, "", 0, &unix.MountAttr{}))
}

// fits judges what the kernel has answered to a call that is in vain.
func fits(answer error) error {
	if !errors.Is(answer, unix.ENOSYS) {
		return nil
	}
	release := "this kernel"
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		release = "Linux " + unix.ByteSliceToString(name.Release[:])
	}
	return fmt.Errorf("%s is too old for containers, 5.12 is the oldest: mount_setattr: %w", release, answer)
}
