package container

import (
	"fmt"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestMountOptions: what is of a whole filesystem is said to a new one by the kernel's
// words, and what no kernel knows any more is known here, as the specification has it
// (config.md, "Linux mount options").
func TestMountOptions(t *testing.T) {
	m, err := planMount(specs.Mount{
		Type: "tmpfs", Source: "t", Destination: "/t",
		Options: strings.Split("async,size=1m,atime,sync,dirsync,iversion,noiversion,lazytime,nolazytime,loud,silent,mand,nomand,noatime,norelatime", ","),
	})
	const want = "async,size=1m,sync,dirsync,lazytime,nolazytime,mand,nomand"
	if err != nil || m.Data != want || m.Flags != 0x400 {
		t.Errorf("%q, flags %#x, %v", m.Data, m.Flags, err)
	}
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Type: "tmpfs", Source: "t", Destination: "/dev/volume", Options: []string{"sync", "dirsync", "lazytime", "silent", "iversion"}})
	}, "sleep")
	if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	pid := o.expect(t, specs.StateRunning).Pid
	got := fmt.Sprint(mountFields(t, pid, "/dev/volume"))
	for _, word := range []string{"sync", "dirsync", "lazytime"} {
		if !strings.Contains(got, word) {
			t.Errorf("no %s in %s", word, got)
		}
	}
	if err := o.Delete(t.Context(), "c1", true); err != nil {
		t.Fatal(err)
	}
	_, _ = waitChild(pid)
}

// TestUngrantedCapabilities: what can't be given is told in a line each of a kind.
func TestUngrantedCapabilities(t *testing.T) {
	_, ungranted := planCaps(&specs.LinuxCapabilities{
		Permitted: []string{"CAP_KILL", "CAP_CHOWN"}, Inheritable: []string{"CAP_KILL"}, Bounding: []string{"CAP_X"},
		Ambient: []string{"CAP_KILL", "CAP_MKNOD", "CAP_CHOWN", "CAP_X"},
	})
	const want = `["capability \"CAP_X\" is not known" "can't raise ambient capability CAP_CHOWN, CAP_MKNOD: not both permitted and inheritable"]`
	if got := fmt.Sprintf("%q", ungranted); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
