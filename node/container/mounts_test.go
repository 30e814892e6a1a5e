package container

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// inImage puts directories (with a slash behind), links (name -> target) and files into
// the root of a container.
func (b *box) inImage(cfg CreateConfig, names ...string) {
	b.t.Helper()
	for _, name := range names {
		link, to, is := strings.Cut(name, " -> ")
		path := filepath.Join(cfg.Rootfs.Upper, link)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		switch {
		case err != nil:
		case is:
			err = os.Symlink(to, path)
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(path, 0o755)
		default:
			err = os.WriteFile(path, []byte("of the image"), 0o640)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *box) says(cfg CreateConfig, want string) {
	b.t.Helper()
	_, out := b.run(cfg)
	if got := strings.ReplaceAll(out, "stdout F ", ""); got != want {
		b.t.Errorf("saw\n%swant\n%s", got, want)
	}
}

// A tmpfs has the mode of the directory that it covers, unless it has one of its own.
func TestTmpfsMode(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("owner", "/a", ";", "owner", "/b", ";", "owner", "/new"))
	b.inImage(cfg, "a/", "b/")
	for _, d := range []string{"a", "b"} {
		if err := os.Chmod(filepath.Join(cfg.Rootfs.Upper, d), 0o710); err != nil {
			t.Fatal(err)
		}
	}
	for target, options := range map[string][]string{"/a": nil, "/b": {"mode=1500"}, "/new": nil} {
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: "tmpfs", Destination: target, Type: "tmpfs", Options: options})
	}
	b.says(cfg, "/a 0:0 710 ok\n/b 0:0 1500 ok\n/new 0:0 1777 ok\n")
}

// With tmpcopyup all that a tmpfs covers is in it, as it was, and changes stay there.
func TestTmpfsCopyUp(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec(strings.Split("owner /d ; owner /d/sub ; owner /d/sub/f ; read /d/sub/f ; owner /d/l ; read /d/l ; write /d/sub/f ; "+
		"read /ro/f ; write /ro/f ; ls /none", " ")...))
	b.inImage(cfg, "d/sub/f", "d/l -> sub/f", "ro/f")
	top := filepath.Join(cfg.Rootfs.Upper, "d")
	for path, own := range map[string][3]int{"": {7, 8, 0o711}, "sub": {5, 6, 0o777}, "sub/f": {3, 4, 0o4755}} {
		path = filepath.Join(top, path)
		if err := os.Chown(path, own[0], own[1]); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, os.FileMode(own[2]&0o777)|os.FileMode(own[2]&0o4000>>11)*os.ModeSetuid); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Lchown(filepath.Join(top, "l"), 9, 9); err != nil {
		t.Fatal(err)
	}
	for target, options := range map[string][]string{"/d": {"tmpcopyup"}, "/ro": {"ro", "tmpcopyup"}, "/none": {"tmpcopyup"}} {
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: "tmpfs", Destination: target, Type: "tmpfs", Options: options})
	}
	b.says(cfg, `/d 7:8 711 ok
/d/sub 5:6 777 ok
/d/sub/f 3:4 4755 ok
/d/sub/f ok of the image
/d/l 9:9 777 ok
/d/l ok of the image
write /d/sub/f ok
/ro/f ok of the image
write /ro/f read-only file system
ls /none ok 
`)
	if text, err := os.ReadFile(filepath.Join(top, "sub/f")); err != nil || string(text) != "of the image" {
		t.Errorf("the image has %q now, %v", text, err)
	}
	bad := b.config("c2", probeSpec("id"))
	bad.Spec.Mounts = append(bad.Spec.Mounts, specs.Mount{Source: b.dir, Destination: "/x", Type: "bind", Options: []string{"bind", "tmpcopyup"}})
	if err := b.Create(b.context(), bad); err == nil || !strings.Contains(err.Error(), `"tmpcopyup" is for a tmpfs`) {
		t.Errorf("Create: %v", err)
	}
}

// A /dev may be read-only, with everything on it.
func TestReadonlyDev(t *testing.T) {
	b := newBox(t)
	cfg := b.config("c1", probeSpec("write", "/dev/x", ";", "write", "/dev/null", ";", "write", "/dev/shm/x", ";", "stat", "/dev/console"))
	for i := range cfg.Spec.Mounts {
		if m := &cfg.Spec.Mounts[i]; m.Destination == "/dev" {
			m.Options = append(slices.Clone(m.Options), "ro")
		}
	}
	b.says(cfg, "write /dev/x read-only file system\nwrite /dev/null ok\nwrite /dev/shm/x ok\nstat /dev/console no such file or directory\n")
}

// A link in the image never leads proc or sysfs elsewhere: what is to be masked there
// would be looked for where somebody else may have changed it. Other mounts follow
// links, also to what is made only then, inside the root.
func TestLinksInTheImage(t *testing.T) {
	b := newBox(t)
	for i, name := range []string{"proc", "sys"} {
		cfg := b.config("bad"+itoa(i), probeSpec("id"))
		b.inImage(cfg, "elsewhere/", name+" -> /elsewhere")
		if err := b.Create(b.context(), cfg); err == nil || !strings.Contains(err.Error(), "must be mounted on ordinary directory") {
			t.Errorf("/%s is a link: %v", name, err)
		}
	}
	cfg := b.config("c1", probeSpec("read", "/tmp/a/b/c/hosts", ";", "read", "/tmp/up", ";", "read", "/loop/x"))
	b.inImage(cfg, "jump -> /tmp/a/b", "etc/hosts -> /jump/c/hosts", "etc/up -> ../../../tmp/up", "loop/")
	source := filepath.Join(b.dir, "hosts")
	if err := os.WriteFile(source, []byte("hosts"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/etc/hosts", "/etc/up"} {
		cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: source, Destination: target, Type: "bind", Options: []string{"bind"}})
	}
	b.says(cfg, "/tmp/a/b/c/hosts ok hosts\n/tmp/up ok hosts\n/loop/x no such file or directory \n")
	bad := b.config("c2", probeSpec("id"))
	b.inImage(bad, "x -> y", "y -> x")
	bad.Spec.Mounts = append(bad.Spec.Mounts, specs.Mount{Source: source, Destination: "/x/z", Type: "bind", Options: []string{"bind"}})
	if err := b.Create(b.context(), bad); err == nil || !strings.Contains(err.Error(), "too many levels of symbolic links") {
		t.Errorf("a loop of links: %v", err)
	}
}

// What is masked twice has one mount on it, and all directories have the same: by a list
// of calls, and by a stage, which a tmpfs with the mode of what it covers takes.
func TestMaskedOnce(t *testing.T) {
	for _, stage := range []bool{false, true} {
		b := newBox(t)
		cfg := b.config("c1", probeSpec("mounts", "/m1", ";", "device", "/m1", "/m2", "/m3"))
		b.inImage(cfg, "m1/", "m2/", "m3/", "s/")
		cfg.Spec.Linux.MaskedPaths = []string{"/m1", "/m2", "/m1", "/m3", "/m1"}
		if stage {
			cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: "tmpfs", Destination: "/s", Type: "tmpfs"})
		}
		_, out := b.run(cfg)
		out = strings.ReplaceAll(out, "stdout F ", "")
		if strings.Count(out, "mount /m1 ro") != 1 || strings.Count(out, "mount /m1") != 1 || strings.Count(out, " ok true\n") != 3 {
			t.Errorf("with a stage %v: saw\n%s", stage, out)
		}
	}
}

// A startContainer hook that says nothing of its environment has the program's, and one
// that does has its own.
func TestOCIHookEnvironment(t *testing.T) {
	for _, c := range []struct {
		env  []string
		want string
	}{{nil, "ONE two\nHOME /root\n"}, {[]string{"ONE=three"}, "ONE three\nHOME \n"}} {
		o, bundle := newOCI(t, func(s *specs.Spec) {
			s.Process.Env = []string{"ONE=two"}
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/probe", Args: strings.Fields("probe env ONE ; env HOME"), Env: c.env}}}
		}, "exit", "0")
		said, err := os.Create(filepath.Join(bundle, "said"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { said.Close() })
		if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, said, said}}); err != nil {
			t.Fatal(err)
		}
		if code, err := o.Wait("c1"); code != 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
		if b, err := os.ReadFile(said.Name()); err != nil || string(b) != c.want {
			t.Errorf("with %q the hook said %q, %v; want %q", c.env, b, err, c.want)
		}
	}
}

// A mount that shall be shared is, with users of the container's own as well.
func TestOCISharedUsers(t *testing.T) {
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/dev/m", Source: t.TempDir(), Options: []string{"bind", "shared"}})
		maps := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	}, "read", "/proc/self/mountinfo")
	said, err := os.Create(filepath.Join(bundle, "said"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close() })
	if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, said, said}}); err != nil {
		t.Fatal(err)
	}
	if code, err := o.Wait("c1"); code != 0 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	b, err := os.ReadFile(said.Name())
	if err != nil || !regexp.MustCompile(` /dev/m [^ ]* shared:`).Match(b) {
		t.Errorf("%v\n%s", err, b)
	}
}

// A createContainer hook begins in the root of the container, though not as its root.
func TestOCICreateHookDirectory(t *testing.T) {
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "test -x bin/probe && test -e " + t.TempDir()}}}}
	}, "exit", "3")
	if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	if code, err := o.Wait("c1"); code != 3 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
}

// A startContainer hook is a program of the image's, and has what the container's has:
// its user, its capabilities, its filter, its namespaces.
func TestOCIHookConfined(t *testing.T) {
	for _, users := range []bool{false, true} {
		o, bundle := newOCI(t, func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 7, GID: 8, AdditionalGids: []uint32{9}}
			s.Process.Cwd = "/proc"
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL"}}
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdirat"}, Action: specs.ActErrno}}}
			if users {
				maps := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
				s.Linux.UIDMappings, s.Linux.GIDMappings = maps, maps
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			}
			words := "probe status Uid Groups CapBnd CapEff Seccomp NoNewPrivs ; id ; fds ; read /proc/self/uid_map"
			s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/probe", Args: strings.Fields(words)}}}
		}, strings.Fields("status Uid Groups CapBnd CapEff Seccomp NoNewPrivs ; id ; fds ; read /proc/self/uid_map")...)
		said, err := os.Create(filepath.Join(bundle, "said"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { said.Close() })
		if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, said, said}}); err != nil {
			t.Fatal(err)
		}
		if code, err := o.Wait("c1"); code != 0 || err != nil {
			t.Errorf("code %d, %v", code, err)
		}
		b, err := os.ReadFile(said.Name())
		half := len(b) / 2
		if err != nil || half == 0 || !bytes.Equal(b[:half], b[half:]) || !strings.Contains(string(b), "CapBnd: 0000000000000020\n") {
			t.Errorf("with users of its own %v, the hook and the program said\n%s%v", users, b, err)
		}
	}
}

// A poststart hook that fails ends the container.
func TestOCIPoststartFails(t *testing.T) {
	after := filepath.Join(t.TempDir(), "after")
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Hooks = &specs.Hooks{
			Poststart: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 7"}}},
			Poststop:  []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo once >> " + after}}},
		}
	}, "sleep")
	const want = `error running poststart hook #0: "/bin/sh": exit status 7`
	if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle}); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("run: %v", err)
	}
	if s, err := o.State("c1"); err == nil {
		t.Errorf("state after run: %+v", s)
	}
	if b, err := os.ReadFile(after); err != nil || string(b) != "once\n" {
		t.Errorf("poststop: %q, %v", b, err)
	}
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err != nil {
		t.Fatal(err)
	}
	pid := o.expect(t, specs.StateCreated).Pid
	if err := o.Start(t.Context(), "c1"); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("start: %v", err)
	}
	if code, err := waitChild(pid); code != 128+9 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	if s, err := o.State("c1"); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "does not exist") {
		t.Errorf("state after start: %+v, %v", s, err)
	}
	if b, err := os.ReadFile(after); err != nil || string(b) != "once\nonce\n" {
		t.Errorf("poststop: %q, %v", b, err)
	}
}

// A hook that fails before the start ends the creation, and those that clean up run; to
// who asks meanwhile the container is being created, and nobody takes it away unasked.
func TestOCICreateHookFails(t *testing.T) {
	dir := t.TempDir()
	o, bundle := newOCI(t, func(s *specs.Spec) {
		sh := func(script string) []specs.Hook {
			return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}}}
		}
		s.Hooks = &specs.Hooks{
			CreateRuntime: sh("echo runtime $PWD >> " + dir + "/said; exit 3"),
			Poststop:      sh("echo poststop $PWD >> " + dir + "/said"),
		}
	}, "sleep")
	if err := o.Create(t.Context(), "c1", OCICreate{Bundle: bundle}); err == nil || !strings.Contains(err.Error(), `error running createRuntime hook #0`) {
		t.Errorf("create: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "said")); err != nil || string(b) != "runtime "+bundle+"\npoststop "+bundle+"\n" {
		t.Errorf("hooks said %q, %v", b, err)
	}
	if s, err := o.State("c1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("state: %+v, %v", s, err)
	}
	rec := &ociRecord{ID: "c1", Boot: bootID(), Maker: os.Getpid()}
	if s := o.state(rec); s.Status != specs.StateCreating || s.Pid != 0 {
		t.Errorf("state while it is made: %+v", s)
	}
	rec.Maker = 1 << 30 // nobody's
	if s := o.state(rec); s.Status != specs.StateStopped {
		t.Errorf("state when its maker has gone: %+v", s)
	}
}

// The options that begin with r are for a whole tree, those without for its top; times
// of access are one field, of which no option may set a part.
func TestTreeAttributes(t *testing.T) {
	for _, stage := range []bool{false, true} {
		b := newBox(t)
		source := mappedTree(t, b.dir)
		if err := unix.Mount("", filepath.Join(source, "below"), "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_NOSUID|unix.MS_NOATIME, ""); err != nil {
			t.Fatal(err)
		}
		var verbs, want []string
		spec := probeSpec()
		for _, c := range []struct{ option, top, below string }{
			{"ratime", "rw,relatime", "rw,nosuid,relatime"}, {"rrelatime", "rw,relatime", "rw,nosuid,relatime"},
			{"rnoatime", "rw,noatime", "rw,nosuid,noatime"}, {"rstrictatime", "rw", "rw,nosuid"},
			{"rnostrictatime", "rw,relatime", "rw,nosuid,relatime"}, {"rsuid", "rw,relatime", "rw,noatime"},
			{"rro", "ro,relatime", "ro,nosuid,noatime"}, {"rnodiratime", "rw,nodiratime,relatime", "rw,nosuid,noatime,nodiratime"},
			{"atime", "rw,relatime", "rw,nosuid,noatime"}, {"relatime", "rw,relatime", "rw,nosuid,noatime"},
			{"noatime", "rw,noatime", "rw,nosuid,noatime"}, {"strictatime", "rw", "rw,nosuid,noatime"},
		} {
			at := "/" + c.option
			spec.Mounts = append(spec.Mounts, specs.Mount{Source: source, Destination: at, Type: "bind", Options: []string{"rbind", c.option}})
			verbs = append(verbs, "mounts", at, at+"/below", ";")
			want = append(want, "mount "+at+" "+inOrder(c.top), "mount "+at+"/below "+inOrder(c.below))
		}
		spec.Process.Args = append(spec.Process.Args, verbs[:len(verbs)-1]...)
		cfg := b.config("c1", spec)
		if stage {
			b.inImage(cfg, "s/")
			cfg.Spec.Mounts = append(cfg.Spec.Mounts, specs.Mount{Source: "tmpfs", Destination: "/s", Type: "tmpfs"})
		}
		_, out := b.run(cfg)
		var got []string
		for line := range strings.Lines(out) {
			f := strings.Fields(strings.TrimPrefix(line, "stdout F "))
			got = append(got, strings.Join(f[:2], " ")+" "+inOrder(f[2]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("with a stage %v: saw\n%s\nwant\n%s", stage, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// inOrder has the options of a mount in one order.
func inOrder(options string) string {
	all := strings.Split(options, ",")
	slices.Sort(all)
	return strings.Join(all, ",")
}

// A bind mount may have its source in what the mounts before it have made of the root.
func TestOCIMountInTheRoot(t *testing.T) {
	root := t.TempDir()
	volume := t.TempDir()
	for _, d := range []string{"bin", "proc", "sys", "dev", "mnt", "final"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(volume, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(volume, "x/f"), []byte("inside"), 0o644); err != nil {
		t.Fatal(err)
	}
	o, bundle := newOCI(t, func(s *specs.Spec) {
		s.Root.Path = root
		s.Mounts = append(s.Mounts,
			specs.Mount{Source: filepath.Join(built.rootfs, "bin"), Destination: "/bin", Options: []string{"bind"}},
			specs.Mount{Source: volume, Destination: "/mnt", Options: []string{"bind"}},
			specs.Mount{Source: filepath.Join(root, "mnt/x"), Destination: "/final", Options: []string{"bind"}})
	}, "read", "/final/f")
	said, err := os.Create(filepath.Join(bundle, "said"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	if err := o.Run(t.Context(), "c1", OCICreate{Bundle: bundle, Stdio: [3]*os.File{nil, said, said}}); err != nil {
		t.Fatal(err)
	}
	if code, err := o.Wait("c1"); code != 0 || err != nil {
		t.Errorf("code %d, %v", code, err)
	}
	if b, err := os.ReadFile(said.Name()); err != nil || string(b) != "/final/f ok inside\n" {
		t.Errorf("said %q, %v", b, err)
	}
}
