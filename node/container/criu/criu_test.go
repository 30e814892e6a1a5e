package criu

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// program puts a criu of the test's own first in the PATH: a script that notes its
// arguments, and then does what body says.
func program(t *testing.T, body string) (args func() []string) {
	t.Helper()
	dir := t.TempDir()
	noted := filepath.Join(dir, "args")
	script := "#!/bin/sh\nprintf '%s\\n' \"$@\" > " + noted + "\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(dir, "criu"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return func() []string {
		b, err := os.ReadFile(noted)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
}

// TestArgs: what is asked for in criu's words.
func TestArgs(t *testing.T) {
	common := Common{Images: "/i", Work: "/w"}
	start := []string{"--images-dir", "/i", "--work-dir", "/w", "--log-file"}
	for name, c := range map[string]struct{ got, want []string }{
		"plain": {(&Dump{Common: common, PID: 7}).Args(),
			slices.Concat([]string{"dump"}, start, []string{"dump.log", "-v4", "--manage-cgroups=ignore", "--tree", "7"})},
		"kubelet's": {(&Dump{Common: Common{Images: "/i", Work: "/w", Close: true, FileLocks: true, External: []string{"mnt[/a]:/b"}}, PID: 7, LeaveRunning: true, Freezer: "/f"}).Args(),
			slices.Concat([]string{"dump"}, start, []string{"dump.log", "-v4", "--manage-cgroups=ignore", "--tcp-close", "--file-locks",
				"--external", "mnt[/a]:/b", "--tree", "7", "--leave-running", "--freeze-cgroup", "/f"})},
		"memory first": {(&Dump{Common: common, PID: 7, Pre: true, LeaveRunning: true, Parent: "../0"}).Args(),
			slices.Concat([]string{"pre-dump"}, start, []string{"dump.log", "-v4", "--manage-cgroups=ignore", "--tree", "7", "--track-mem", "--prev-images-dir", "../0"})},
		"restore": {(&Restore{Common: common, Root: "/r", PidFile: "/p", Stopped: true, Inherit: []string{"fd[3]:pipe:[7]"}, Join: []string{"uts:/u"}, LSM: "apparmor:x"}).Args(),
			slices.Concat([]string{"restore"}, start, []string{"restore.log", "-v4", "--manage-cgroups=ignore", "--restore-detached", "--root", "/r", "--pidfile", "/p",
				"--leave-stopped", "--inherit-fd", "fd[3]:pipe:[7]", "--join-ns", "uts:/u", "--lsm-profile", "apparmor:x"})},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s:\n%q, want\n%q", name, c.got, c.want)
		}
	}
}

// TestDump: a dump is what the program makes of it, and its words are the error.
func TestDump(t *testing.T) {
	dir := t.TempDir()
	d := &Dump{Common: Common{Images: filepath.Join(dir, "i"), Work: filepath.Join(dir, "w")}, PID: 7, Descriptors: []string{"", "pipe:[5]", "file[6e:3]"}}
	args := program(t, "touch "+dir+"/i/inventory.img")
	if err := d.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := args(); !slices.Equal(got, d.Args()) {
		t.Errorf("started with %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "i/inventory.img")); err != nil {
		t.Error(err)
	}
	fds, err := Descriptors(d.Images)
	if want := [3]string{"", "pipe:[5]", "file[6e:3]"}; err != nil || fds != want {
		t.Errorf("descriptors %q, %v", fds, err)
	}
	program(t, "cat > "+dir+"/w/dump.log <<X\n(00.1) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted\n"+
		"(00.2)      1: Error (criu/files.c:12): Can't lookup mount=5\nX\necho too early >&2; exit 3")
	if err := d.Do(t.Context()); err == nil || err.Error() != "criu dump: exit status 3: Can't lookup mount=5" {
		t.Errorf("a failure is %v", err)
	}
	program(t, "rm -f "+dir+"/w/dump.log; echo 'Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds' >&2; exit 1")
	if err := d.Do(t.Context()); err == nil || !strings.HasSuffix(err.Error(), ": vdso: Unexpected rt vDSO area bounds") {
		t.Errorf("a failure before there is a log is %v", err)
	}
	t.Setenv("PATH", dir)
	if err := d.Do(t.Context()); !errors.Is(err, ErrAbsent) {
		t.Errorf("without a program: %v", err)
	}
}

// TestDescriptors: the file comes with the images, and is anybody's.
func TestDescriptors(t *testing.T) {
	for content, want := range map[string]string{
		`["/dev/null","pipe:[1]","pipe:[2]","pipe:[3]"]`: "|pipe:[1]|pipe:[2]",
		`["/etc/shadow","path/to","file[1:2]"]`:          "||file[1:2]",
		`[]`:                                             "||",
		`{}`:                                             "error",
		`["` + strings.Repeat("x", maxDescriptors) + `"]`: "error",
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, DescriptorsFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		fds, err := Descriptors(dir)
		got := strings.Join(fds[:], "|")
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%.60s: %s, want %s", content, got, want)
		}
	}
	dir := t.TempDir()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, DescriptorsFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Descriptors(dir); err == nil {
		t.Error("a link was followed")
	}
}
