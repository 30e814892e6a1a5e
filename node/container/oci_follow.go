package container

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/cgroup"
)

// OCIFollow are the options of Follow.
type OCIFollow struct {
	// Interval is the time between two measurements.
	Interval time.Duration
	// Usage hears of each, OOM of the container running out of memory. An error of theirs
	// ends Follow.
	Usage func(cgroup.Usage) error
	OOM   func() error
}

// Follow is `events`: it returns when the container has ended.
func (o *OCI) Follow(id string, f OCIFollow) error {
	if f.Interval <= 0 {
		return fmt.Errorf("follow container %q: interval %s: must be more than nothing", id, f.Interval)
	}
	rec, err := o.load(id)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(rec.PID, 0)
	if err != nil {
		pidfd = -1 // and running says what it is
	} else {
		defer unix.Close(pidfd)
	}
	g, err := o.running("follow", id, specs.StateRunning, specs.StateCreated, Paused)
	if err != nil {
		return err
	}
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}, {Fd: -1, Events: unix.POLLIN}}
	oom, err := g.WatchOOM()
	if err != nil {
		o.runtime().log.Warn("nothing will tell of want of memory", "err", err)
	} else {
		defer oom.Close()
		fds[1].Fd = int32(oom.FD())
	}
	for next := time.Now().Add(f.Interval); ; {
		if _, err := unix.Poll(fds, int(max(0, time.Until(next).Milliseconds()+1))); err != nil && !errors.Is(err, syscall.EINTR) {
			return os.NewSyscallError("poll", err)
		}
		if fds[1].Revents != 0 && oom.Happened() {
			if err := f.OOM(); err != nil {
				return err
			}
		}
		if fds[0].Revents != 0 {
			return nil
		}
		if time.Now().Before(next) {
			continue
		}
		next = next.Add(f.Interval)
		u, err := g.Usage()
		if err == nil {
			err = f.Usage(u)
		}
		if err != nil {
			return err
		}
	}
}
