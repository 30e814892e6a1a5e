package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// roomTries bounds how often processes are moved: some fork meanwhile.
const roomTries = 10

// MakeRoom lets groups be made below the root of a cgroup namespace, in a container or a
// unit that has one, on cgroup v2: what runs in it goes to the group "init" below it, as
// Docker's own image for Docker in a container does. A group with processes passes no
// memory on, and those below it could take none in. The root of the machine may have some.
func MakeRoom() error {
	if !cgroups.IsCgroup2UnifiedMode() {
		return nil
	}
	return makeRoom(root)
}

func makeRoom(root string) error {
	for range roomTries {
		pids, err := inTheWay(root)
		if err != nil || len(pids) == 0 {
			return err
		}
		leaf := filepath.Join(root, "init")
		if err := os.Mkdir(leaf, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make room below the cgroup of this namespace: %w", err)
		}
		for _, pid := range pids {
			err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0o644) //nolint:gosec // the kernel's file
			if err != nil && !errors.Is(err, unix.ESRCH) {                               // it has ended
				return fmt.Errorf("move process %s out of the cgroup of this namespace: %w", pid, err)
			}
		}
	}
	return fmt.Errorf("the cgroup of this namespace, %q, keeps getting processes, and groups below it can have none", root)
}

// inTheWay are the processes in the root of a cgroup namespace; none in that of the
// machine, which alone has no type.
func inTheWay(root string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.type")); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	b, err := os.ReadFile(filepath.Join(root, "cgroup.procs"))
	if err != nil {
		return nil, fmt.Errorf("see what is in the cgroup of this namespace: %w", err)
	}
	pids := strings.Fields(string(b))
	for _, pid := range pids {
		if pid == "0" { // what it is called here
			return nil, fmt.Errorf("the cgroup of this namespace, %q, has a process that is not of this process namespace: groups below it can have none", root)
		}
	}
	return pids, nil
}
