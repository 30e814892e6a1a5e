package container

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKernelFits: only a kernel that does not know the call is too old, and this one does.
func TestKernelFits(t *testing.T) {
	if err := KernelFits(); err != nil {
		t.Error(err)
	}
	for answer, old := range map[error]bool{nil: false, unix.EBADF: false, unix.EPERM: false, unix.ENOSYS: true} {
		err := fits(answer)
		if (err != nil) != old {
			t.Errorf("%v: %v", answer, err)
		}
		if old && (!errors.Is(err, answer) || !strings.HasPrefix(err.Error(), "Linux ") || !strings.Contains(err.Error(), "5.12 is the oldest")) {
			t.Errorf("%v: %q", answer, err)
		}
	}
}
