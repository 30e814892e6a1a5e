package network

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
)

// within runs fn on a thread that is in ns. The thread is thrown away when it
// cannot come back.
func within(ns netns.NsHandle, fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		defer home.Close()
		if err := netns.Set(ns); err != nil {
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = fn()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// sysctl writes a network setting of the calling thread's namespace.
func sysctl(name, value string) error {
	path := filepath.Join("/proc/sys/net", name)
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("set %q to %s: %w", path, value, err)
	}
	return nil
}
