package container

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestRunToEnd(t *testing.T) {
	b := newBox(t)
	exits := b.Exits(b.context())
	s, out := b.run(b.config("c1", probeSpec("host", ";", "id", ";", "exit", "3")))
	if s.State != Exited || s.ExitCode != 3 || s.OOMKilled || s.PID != 0 || s.StartedAt.IsZero() || s.FinishedAt.IsZero() {
		t.Errorf("status %+v", s)
	}
	want := "stdout F host inside pid 1\nstdout F id 0 0 [0] / ok\n"
	if out != want {
		t.Errorf("log\n%swant\n%s", out, want)
	}
	if e := <-exits; e.ID != "c1" || e.ExitCode != 3 {
		t.Errorf("exit %+v", e)
	}
	if err := b.Create(b.context(), b.config("c1", probeSpec("exit", "0"))); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a second container of the same id: %v", err)
	}
	for range 2 {
		if err := b.Remove(b.context(), "c1"); err != nil {
			t.Error(err)
		}
	}
}

// Each spec here runs to its end; the log is what the probe has seen.
func TestInside(t *testing.T) {
	host := t.TempDir()
	for name, text := range map[string]string{"file": "from the host", "sub/deep": "deep"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(host, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(host, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(src, dst string, options ...string) specs.Mount {
		return specs.Mount{Source: src, Destination: dst, Type: "bind", Options: append([]string{"rbind"}, options...)}
	}
	tests := map[string]struct {
		change func(*specs.Spec, *CreateConfig)
		verbs  string
		want   string
	}{
		"user": {
			func(s *specs.Spec, _ *CreateConfig) {
				mask := uint32(0o027)
				s.Process.User = specs.User{UID: 1000, GID: 100, AdditionalGids: []uint32{7, 8}, Umask: &mask}
				s.Process.Cwd = "/not/there/yet"
			},
			"id ; env HOME ; status CapEff CapPrm NoNewPrivs Umask ; append /dev/stdout hello\n",
			`id 1000 100 [7 8] /not/there/yet ok
HOME /home/me
Umask: 0027
CapPrm: 0000000000000000
CapEff: 0000000000000000
NoNewPrivs: 1
hello
append /dev/stdout ok`,
		},
		"root": {
			func(*specs.Spec, *CreateConfig) {},
			"env HOME ; status CapEff CapBnd Seccomp ; fds ; read /proc/1/comm ; write /proc/sys/kernel/domainname",
			`HOME /root
CapEff: 00000000a80425fb
CapBnd: 00000000a80425fb
Seccomp: 0
fds 0,1,2
/proc/1/comm ok probe
write /proc/sys/kernel/domainname read-only file system`,
		},
		"ambient": {
			func(s *specs.Spec, _ *CreateConfig) {
				s.Process.User.UID = 1000
				one := []string{"CAP_NET_BIND_SERVICE"}
				s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: one, Effective: one, Permitted: one, Inheritable: one, Ambient: one}
			},
			"status CapInh CapPrm CapEff CapBnd CapAmb",
			`CapInh: 0000000000000400
CapPrm: 0000000000000400
CapEff: 0000000000000400
CapBnd: 0000000000000400
CapAmb: 0000000000000400`,
		},
		"hidden": {
			func(s *specs.Spec, _ *CreateConfig) {
				s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/etc", "/not/there")
			},
			"read /proc/timer_list ; ls /etc ; ls /sys/firmware ; write /sys/fs/cgroup/x ; ls /dev",
			`/proc/timer_list ok 
ls /etc ok 
ls /sys/firmware ok 
write /sys/fs/cgroup/x read-only file system
ls /dev ok fd,full,mqueue,null,ptmx,pts,random,shm,stderr,stdin,stdout,tty,urandom,zero`,
		},
		"readonly": {
			func(s *specs.Spec, _ *CreateConfig) { s.Root.Readonly = true },
			"write /x ; write /dev/shm/x ; write /tmp/x",
			"write /x read-only file system\nwrite /dev/shm/x ok\nwrite /tmp/x read-only file system",
		},
		"mounts": {
			func(s *specs.Spec, _ *CreateConfig) {
				s.Mounts = append(s.Mounts,
					bind(host, "/a/b/dir"), bind(host, "/ro", "ro"), bind(filepath.Join(host, "file"), "/etc/one/file", "ro"),
					specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=1m", "mode=1777"}})
			},
			"read /a/b/dir/sub/deep ; write /a/b/dir/new ; write /ro/new ; read /etc/one/file ; write /etc/one/file ; stat /scratch",
			`/a/b/dir/sub/deep ok deep
write /a/b/dir/new ok
write /ro/new read-only file system
/etc/one/file ok from the host
write /etc/one/file read-only file system
stat /scratch dtrwxrwxrwx`,
		},
		"symlinks stay inside": {
			func(s *specs.Spec, cfg *CreateConfig) {
				for name, to := range map[string]string{"escape": "/etc", "updir": "../../../../../../tmp", "magic": "/proc/self/root/tmp"} {
					if err := os.Symlink(to, filepath.Join(cfg.Rootfs.Upper, name)); err != nil {
						t.Fatal(err)
					}
				}
				s.Mounts = append(s.Mounts, bind(host, "/escape/made"), bind(host, "/updir/made"))
			},
			"read /etc/made/file ; read /tmp/made/file",
			"/etc/made/file ok from the host\n/tmp/made/file ok from the host",
		},
		"sysctl": {
			func(s *specs.Spec, _ *CreateConfig) {
				s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "17", "kernel.shm_rmid_forced": "1"}
			},
			"read /proc/sys/net/ipv4/ip_unprivileged_port_start ; read /proc/sys/kernel/shm_rmid_forced",
			"/proc/sys/net/ipv4/ip_unprivileged_port_start ok 17\n/proc/sys/kernel/shm_rmid_forced ok 1",
		},
		"limits": {
			func(s *specs.Spec, _ *CreateConfig) {
				s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
				score := 900
				s.Process.OOMScoreAdj = &score
			},
			"read /proc/self/oom_score_adj",
			"/proc/self/oom_score_adj ok 900",
		},
		"devices": {
			func(s *specs.Spec, _ *CreateConfig) {
				mode := os.FileMode(0o600)
				s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/deep/zero", Type: "c", Major: 1, Minor: 5, FileMode: &mode}}
			},
			"stat /dev/null ; stat /dev/deep/zero ; mknod /tmp/disk 65024",
			"stat /dev/null Dcrw-rw-rw-\nstat /dev/deep/zero Dcrw-------\nmknod ok open operation not permitted",
		},
	}
	b := newBox(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := &box{b.Runtime, t, b.dir}
			spec := probeSpec(strings.Split(tt.verbs, " ")...)
			cfg := b.config(strings.ReplaceAll(name, " ", "-"), spec)
			tt.change(spec, &cfg)
			_, out := b.run(cfg)
			if got := strings.TrimSuffix(strings.ReplaceAll(out, "stdout F ", ""), "\n"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What cannot be executed is an error of Start, and the container has exited.
func TestStartFails(t *testing.T) {
	tests := map[string]struct {
		args []string
		want string
	}{
		"not in path":  {[]string{"foo"}, `exec: "foo": executable file not found in $PATH`},
		"no such file": {[]string{"/bin/foo"}, `exec: "/bin/foo": stat /bin/foo: no such file or directory`},
		"directory":    {[]string{"/bin"}, `exec: "/bin": is a directory`},
		"not allowed":  {[]string{"/etc/passwd"}, `exec: "/etc/passwd": permission denied`},
		"no program":   {[]string{"/notelf"}, `exec /notelf: exec format error`},
	}
	b := newBox(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			id := strings.ReplaceAll(name, " ", "-")
			spec := probeSpec()
			spec.Process.Args = tt.args
			cfg := b.config(id, spec)
			if err := os.WriteFile(filepath.Join(cfg.Rootfs.Upper, "notelf"), []byte("not a program"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := b.Create(b.context(), cfg); err != nil {
				t.Fatal(err)
			}
			err := b.Start(b.context(), id)
			if err == nil || !strings.HasSuffix(err.Error(), tt.want) {
				t.Errorf("Start: %v\nwant %s", err, tt.want)
			}
			s, err := b.Wait(b.context(), id)
			if err != nil || s.ExitCode != 128 || !strings.Contains(s.Error, tt.want) {
				t.Errorf("status %+v, %v", s, err)
			}
		})
	}
}

func TestCreateFailsAndLeavesNothing(t *testing.T) {
	b := newBox(t)
	tests := map[string]struct {
		mount specs.Mount
		want  string
	}{
		"no source":  {specs.Mount{Source: "/not/there", Destination: "/x", Type: "bind", Options: []string{"bind"}}, "/not/there: no such file"},
		"bad option": {specs.Mount{Source: "tmpfs", Destination: "/x", Type: "tmpfs", Options: []string{"nonsense"}}, "nonsense"},
		"magic link": {specs.Mount{Source: "tmpfs", Destination: "/proc/self/root/x", Type: "tmpfs"}, "too many levels of symbolic links"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			spec := probeSpec("exit", "0")
			spec.Mounts = append(spec.Mounts, tt.mount)
			err := b.Create(b.context(), b.config("bad", spec))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Create: %v, want %q", err, tt.want)
			}
			if len(b.List()) != 0 {
				t.Errorf("left: %+v", b.List())
			}
		})
	}
}

func TestLogLines(t *testing.T) {
	b := newBox(t)
	_, out := b.run(b.config("c1", probeSpec("fill", "40000", ";", "fill", "16384", ";", "print", "no newline")))
	var got []string
	for line := range strings.Lines(out) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 3)
		if strings.HasPrefix(f[2], "x") {
			f[2] = "x*" + string(rune('0'+len(f[2])/10000))
		}
		got = append(got, strings.Join(f[1:], " "))
	}
	if want := "P x*1|P x*1|F x*0|F x*1|P no newline"; strings.Join(got, "|") != want {
		t.Errorf("got %s, want %s", strings.Join(got, "|"), want)
	}
}

func TestReopenLog(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("lines"))
	cfg.Stdin = true
	b.start(cfg)
	in, out := newPipe(t, b, "c1")
	in.send("one\n")
	out.expect("got one\n")
	if err := os.Rename(cfg.LogPath, cfg.LogPath+".1"); err != nil {
		t.Fatal(err)
	}
	if err := b.ReopenLog(b.context(), "c1"); err != nil {
		t.Fatal(err)
	}
	in.send("quit\n")
	if s, err := b.Wait(b.context(), "c1"); err != nil || s.ExitCode != 0 {
		t.Errorf("%+v %v", s, err)
	}
	if old, now := b.log(cfg.LogPath+".1"), b.log(cfg.LogPath); old != "stdout F got one\n" || now != "stdout F got quit\n" {
		t.Errorf("old log %q, new log %q", old, now)
	}
}

func TestSignals(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("lines", ";", "term"))
	cfg.Stdin = true
	b.start(cfg)
	in, out := newPipe(t, b, "c1")
	in.send("quit\n") // only then: what is printed before the attachment is not seen
	out.expect("ready\n")
	if err := b.Signal(b.context(), "c1", syscall.SIGTERM, false); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Wait(b.context(), "c1"); err != nil || s.ExitCode != 7 {
		t.Errorf("after SIGTERM: %+v %v", s, err)
	}
	b.start(b.config("c2", probeSpec("sleep")))
	if err := b.Signal(b.context(), "c2", syscall.SIGKILL, true); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Wait(b.context(), "c2"); err != nil || s.ExitCode != 137 || s.OOMKilled {
		t.Errorf("after SIGKILL: %+v %v", s, err)
	}
	if err := b.Signal(b.context(), "c2", syscall.SIGKILL, false); err != nil {
		t.Errorf("SIGKILL of a dead container: %v", err)
	}
	if _, err := b.Status("c3"); err == nil {
		t.Error("a container that never was has a status")
	}
	if err := b.Start(context.Background(), "c2"); err == nil {
		t.Error("an exited container starts again")
	}
}
