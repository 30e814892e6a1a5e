package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// DownOptions say what to remove.
type DownOptions struct {
	Settings
	// Purge removes the state directory too: images, objects, keys.
	Purge bool
}

// stopTimeout bounds the orderly end of a running sampan; then it is killed.
const stopTimeout = 20 * time.Second

func downCommand(p Program, s *Settings) *cobra.Command {
	o := DownOptions{}
	cmd := &cobra.Command{
		Use: "down", Short: "Stop the cluster and leave nothing running", Args: cobra.NoArgs,
		Long: `Stop sampan and every container, and remove mounts, namespaces, cgroups, interfaces
and packet filter tables. Objects and images stay in --data-dir for the next up;
with --purge they go too.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Geteuid() != 0 {
				return errors.New("what root has made only root can remove: run sudo sampan down")
			}
			o.Settings = *s
			if err := stopRunning(cmd.Context(), o.DataDir); err != nil {
				return err
			}
			if err := p.Down(cmd.Context(), o); err != nil {
				return err
			}
			if o.Purge {
				return os.RemoveAll(o.DataDir)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&o.Purge, "purge", false, "remove the state directory too: objects, images, keys")
	return cmd
}

// stopRunning ends the process that holds the data directory's lock, and waits
// until the lock is free. A pid alone proves nothing: the lock does.
func stopRunning(ctx context.Context, dir string) error {
	f, err := os.OpenFile(lockPath(dir), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	free := func() bool { return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil }
	if free() {
		return nil
	}
	raw, err := os.ReadFile(lockPath(dir))
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return fmt.Errorf("%s is locked, but does not say by whom: %w", lockPath(dir), err)
	}
	return end(ctx, pid, free)
}

// end asks a process to stop, and kills it when it does not.
func end(ctx context.Context, pid int, free func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if free() {
		return nil // it ended between; the pid may be another's now
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop process %d: %w", pid, err)
		}
		if gone, err := awaitExit(ctx, fd); gone || err != nil {
			return err
		}
	}
	return fmt.Errorf("process %d does not end, though killed", pid)
}

// awaitExit waits for a pidfd to become readable, which it does at exit.
func awaitExit(ctx context.Context, fd int) (bool, error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for until := time.Now().Add(stopTimeout); time.Now().Before(until) && ctx.Err() == nil; {
		n, err := unix.Poll(poll, 1000)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false, err
		}
		if n > 0 {
			return true, nil
		}
	}
	return false, context.Cause(ctx)
}
