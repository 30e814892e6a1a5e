// Package apparmor asks the kernel about AppArmor, which Debian, Ubuntu and SUSE have
// and others have not: is it there, which profiles are loaded, and how a process comes
// to run under one. Loading profiles is not its business.
package apparmor

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
)

// Where the kernel tells of AppArmor.
const (
	enabledFile = "/sys/module/apparmor/parameters/enabled"
	dir         = "/sys/kernel/security/apparmor"
)

// Enabled says that this kernel confines processes by AppArmor. It is asked once: a
// running kernel can neither gain nor lose it.
var Enabled = sync.OnceValue(func() bool { //nolint:gochecknoglobals // the kernel is one for the process
	b, err := os.ReadFile(enabledFile)
	if err != nil || !strings.HasPrefix(string(b), "Y") {
		return false
	}
	_, err = os.Stat(dir)
	return err == nil
})

// OnExec is how a thread asks for a profile for the program that it will execute next:
// Text written to Attr below its own /proc directory.
func OnExec(profile string) (attr, text string) { return "attr/apparmor/exec", "exec " + profile }

// Loaded says whether the kernel knows a profile.
func Loaded(profile string) (bool, error) {
	f, err := os.Open(dir + "/profiles")
	if err != nil {
		return false, fmt.Errorf("list the AppArmor profiles: %w", err)
	}
	defer f.Close()
	return listed(f, profile)
}

// listed looks for a name in lines of "name (mode)". A name may have spaces itself.
func listed(r io.Reader, profile string) (bool, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if i := strings.LastIndex(lines.Text(), " ("); i >= 0 && lines.Text()[:i] == profile {
			return true, nil
		}
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("list the AppArmor profiles: %w", err)
	}
	return false, nil
}

// Remove makes the kernel forget a profile. One that it does not know is no error.
func Remove(profile string) error {
	known, err := Loaded(profile)
	if err != nil || !known {
		return err
	}
	if err := os.WriteFile(dir+"/.remove", []byte(profile), 0); err != nil {
		return fmt.Errorf("remove AppArmor profile %q: %w", profile, err)
	}
	return nil
}
