// Package selinux asks the kernel about SELinux, which Fedora and its kin have and
// others have not: is it there, and which labels its policy knows. It reads and writes
// labels as text, gives files theirs, and says how a process comes by its own. Policies
// are not its business.
package selinux

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// dir is where the kernel tells of SELinux.
	dir = "/sys/fs/selinux"
	// current is what the kernel knows the calling thread by.
	current = "/proc/thread-self/attr/current"
	// noPolicy is what it knows everybody by that has begun before there was a policy.
	noPolicy = "kernel"
)

// Enabled says that this kernel has SELinux, with a policy, enforced or not, and that
// this process may speak to it. It is asked once: a running system gains or loses it by
// starting again.
var Enabled = sync.OnceValue(func() bool { //nolint:gochecknoglobals // the kernel is one for the process
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Type != unix.SELINUX_MAGIC || st.Flags&unix.ST_RDONLY != 0 {
		return false
	}
	b, err := os.ReadFile(current)
	return err == nil && strings.TrimRight(string(b), "\x00\n") != noPolicy
})

// OnExec is how a thread asks for a label for the program that it will execute next:
// Text written to Attr below its own /proc directory.
func OnExec(label string) (attr, text string) { return "attr/exec", label }

// Check asks the kernel whether its policy knows a label.
func Check(label string) error {
	if err := os.WriteFile(dir+"/context", append([]byte(label), 0), 0); err != nil {
		if errors.Is(err, unix.EINVAL) {
			err = ErrUnknown
		}
		return fmt.Errorf("SELinux label %q: %w", label, err)
	}
	return nil
}

// ErrUnknown is for labels that the policy does not know.
var ErrUnknown = errors.New("not known to this host's policy")
