package network

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Who may not change the network is told so at the start, in a sentence.
func TestWithoutCapability(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("there is no capability to give up")
	}
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and with what it may not
		failed <- func() error {
			header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
			var may [2]unix.CapUserData
			if err := unix.Capget(&header, &may[0]); err != nil {
				return err
			}
			may[0].Effective &^= 1 << unix.CAP_NET_ADMIN
			if err := unix.Capset(&header, &may[0]); err != nil {
				return err
			}
			here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(here)
			_, err = openNAT("sampan-powerless", "sampan-none", here)
			return err
		}()
	}()
	if err := <-failed; !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("without the capability: %v", err)
	}
}
