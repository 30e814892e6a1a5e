package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine/archive"
	"github.com/sampan-dev/sampan/node/image"
)

// criu puts a program of that name first in the PATH, which finds its directories of
// images ($i) and of work ($w), and its process ($t) among its arguments.
func (n *node) criu(body string) {
	n.t.Helper()
	dir := n.t.TempDir()
	script := "#!/bin/sh\nwhile [ $# -gt 0 ]; do case $1 in --images-dir) i=$2;; --work-dir) w=$2;; --tree) t=$2;; --external) e=\"$e $2\";; esac; shift; done\n" + body + "\n"
	n.must(os.WriteFile(filepath.Join(dir, "criu"), []byte(script), 0o755))
	n.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// waiting is a running container that has changed some of its files.
func (n *node) waiting(name string) string {
	n.t.Helper()
	pod, main := podConfig(name), containerConfig("wait")
	s, err := n.engine.RunPodSandbox(n.t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	c, err := n.engine.CreateContainer(n.t.Context(), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
	n.must(err)
	_, err = n.engine.StartContainer(n.t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	r, err := n.engine.ExecSync(n.t.Context(), &rt.ExecSyncRequest{ContainerId: c.ContainerId, Cmd: []string{"/probe", "write", "/made", "by me"}})
	n.must(err)
	if r.ExitCode != 0 {
		n.t.Fatalf("write: %s", r.Stderr)
	}
	return c.ContainerId
}

func (n *node) checkpoint(id, to string, timeout int64) error {
	_, err := n.engine.CheckpointContainer(n.t.Context(), &rt.CheckpointContainerRequest{ContainerId: id, Location: to, Timeout: timeout})
	return err
}

// TestCheckpoint: with a program that writes what it is asked for, the archive has it,
// and what the container was and has changed.
func TestCheckpoint(t *testing.T) {
	n := newNode(t)
	id := n.waiting("dumped")
	n.criu("echo memory > $i/pages-1.img; echo $t $e > $i/inventory.img; echo s > $w/stats-dump; echo l > $w/dump.log")
	to := filepath.Join(t.TempDir(), "checkpoint.tar")
	n.must(n.checkpoint(id, to, 0))
	info, err := os.Stat(to)
	n.must(err)
	if info.Mode() != 0o600 {
		t.Errorf("the archive has mode %v", info.Mode())
	}
	f, err := os.Open(to)
	n.must(err)
	defer f.Close()
	dir := filepath.Join(t.TempDir(), "unpacked")
	n.must(archive.Unpack(t.Context(), f, dir))
	d, err := archive.Read(dir)
	n.must(err)
	if d.Config.ID != id || d.Config.Name != "main" || d.Config.RootfsImageName != examImage || d.Spec.Annotations["io.kubernetes.pod.name"] != "dumped" {
		t.Errorf("the archive is of %+v, %v", d.Config, d.Spec.Annotations)
	}
	asked, err := os.ReadFile(filepath.Join(dir, archive.ImagesDir, "inventory.img"))
	n.must(err)
	for _, want := range []string{"mnt[/etc/hosts]:/etc/hosts", "mnt[/dev/shm]:/dev/shm", "net[", ":extRootNetNS", "file["} {
		if !strings.Contains(string(asked), want) {
			t.Errorf("criu was not told of %q: %s", want, asked)
		}
	}
	diff, err := os.ReadFile(filepath.Join(dir, archive.DiffFile))
	n.must(err)
	if !bytes.Contains(diff, []byte("by me")) {
		t.Error("what the container has written is not there")
	}
	n.runsOn(id)
	n.must(os.RemoveAll(to))
	for name, c := range map[string]struct {
		body string
		code codes.Code
		says string
	}{
		"failing": {"echo x > $i/pages-1.img; echo '(00.1) Error (criu/x.c:1): no way' > $w/dump.log; exit 1", codes.Unknown, "no way"},
		"killed":  {"kill -9 $$", codes.Unknown, "killed"},
	} {
		n.criu(c.body)
		err := n.checkpoint(id, to, 0)
		if status.Code(err) != c.code || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), `"main"`) {
			t.Errorf("%s: %v", name, err)
		}
		n.noArchive(to)
		n.runsOn(id)
	}
	t.Setenv("PATH", t.TempDir())
	if err := n.checkpoint(id, to, 0); status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "criu is not installed") {
		t.Errorf("without a program: %v", err)
	}
	for location, code := range map[string]codes.Code{"relative.tar": codes.InvalidArgument, "/nowhere/x.tar": codes.Unimplemented} {
		if err := n.checkpoint(id, location, 0); status.Code(err) != code {
			t.Errorf("%s: %v", location, err)
		}
	}
}

// runsOn: a container has lost nothing but time.
func (n *node) runsOn(id string) {
	n.t.Helper()
	r, err := n.engine.ExecSync(n.t.Context(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "echo", "here"}, Timeout: 60})
	n.must(err)
	if r.ExitCode != 0 || !strings.Contains(string(r.Stdout), "here") {
		n.t.Errorf("the container answers %q, %d", r.Stdout, r.ExitCode)
	}
}

// noArchive: neither of an archive, nor of what it was to be made of.
func (n *node) noArchive(to string) {
	n.t.Helper()
	for _, dir := range []string{filepath.Dir(to), filepath.Join(n.dir, "engine", checkpointsDir)} {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			n.t.Errorf("%q has %v", dir, left)
		}
	}
}

// TestCheckpointTimesOut: whoever waits is told when the time is up. The program is let
// finish, what it made is thrown away, and a second one does not come in between.
func TestCheckpointTimesOut(t *testing.T) {
	n := newNode(t)
	id := n.waiting("slow")
	gate := filepath.Join(t.TempDir(), "gate")
	n.must(exec.CommandContext(t.Context(), "mkfifo", gate).Run())
	n.criu("read x < " + gate + "; echo memory > $i/inventory.img; echo s > $w/stats-dump")
	to := filepath.Join(t.TempDir(), "checkpoint.tar")
	if err := n.checkpoint(id, to, 1); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("after a second: %v", err)
	}
	if err := n.checkpoint(id, to, 0); status.Code(err) != codes.Aborted {
		t.Errorf("a second one: %v", err)
	}
	g, err := os.OpenFile(gate, os.O_WRONLY, 0)
	n.must(err)
	_, err = g.WriteString("go\n")
	n.must(err)
	g.Close()
	n.close() // waits for what is under way
	n.open()
	n.noArchive(to)
	n.runsOn(id)
}

// TestRestoreRefuses: an archive is anybody's, and a container that cannot come out of it
// is not there.
func TestRestoreRefuses(t *testing.T) {
	n := newNode(t)
	n.criu("touch $w/started; exit 1")
	pod := podConfig("refused")
	s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	whole := map[string]string{"config.dump": `{"rootfsImageName":"` + examImage + `"}`, "spec.dump": "{}", "checkpoint/inventory.img": "x"}
	with := func(change map[string]string) []byte {
		files := map[string]string{}
		for _, m := range []map[string]string{whole, change} {
			for k, v := range m {
				files[k] = v
			}
		}
		return n.layer(files)
	}
	mounts, err := json.Marshal(specs.Spec{Mounts: []specs.Mount{{Type: "bind", Source: "/", Destination: "/host"}}})
	n.must(err)
	for name, c := range map[string]struct {
		content []byte
		code    codes.Code
		says    string
	}{
		"no tar":         {[]byte("nonsense"), codes.InvalidArgument, "no checkpoint"},
		"empty":          {n.layer(nil), codes.InvalidArgument, "config.dump"},
		"link":           {with(map[string]string{"checkpoint/pages-1.img": "->/etc/shadow"}), codes.InvalidArgument, "no file"},
		"another image":  {with(map[string]string{"config.dump": `{"rootfsImageName":"exam.test/none:1"}`}), codes.NotFound, "pull it first"},
		"host's root":    {with(map[string]string{"spec.dump": string(mounts)}), codes.InvalidArgument, "expects following bind mounts defined (/host)"},
		"criu's refusal": {with(nil), codes.Unknown, "criu restore"},
	} {
		path := filepath.Join(t.TempDir(), "x.tar")
		n.must(os.WriteFile(path, c.content, 0o600))
		main := containerConfig("wait")
		main.Image.Image = path
		_, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
		if status.Code(err) != c.code || err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		list, err := n.engine.ListContainers(t.Context(), &rt.ListContainersRequest{})
		n.must(err)
		if len(list.Containers) > 0 {
			t.Errorf("%s: there is a container", name)
		}
		n.noArchive(filepath.Join(t.TempDir(), "x"))
		keys, err := n.images.Snapshots()
		n.must(err)
		if len(keys) > 0 {
			t.Errorf("%s: snapshots are left: %v", name, keys)
		}
	}
}

// TestRestoreAsksForLeave: the image that a checkpoint names is for those pods alone that
// may have it, and who may not have it is not told that it is there.
func TestRestoreAsksForLeave(t *testing.T) {
	n := newNode(t)
	n.criu("exit 1")
	pod := podConfig("leave")
	s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	base, err := n.images.Get(examImage)
	n.must(err)
	content := func(config string) []byte {
		return n.layer(map[string]string{"config.dump": config, "spec.dump": "{}", "checkpoint/inventory.img": "x"})
	}
	here := content(`{"rootfsImageRef":"` + base.ID + `","rootfsImageName":"exam.test/none:1"}`)
	const ref, absent = "exam.test/checkpoint:leave", "exam.test/checkpoint:absent"
	n.must(n.addNoted(ref, here, map[string]string{archive.Annotations[0]: "main"}))
	n.must(n.addNoted(absent, content(`{"rootfsImageName":"exam.test/none:1"}`), map[string]string{archive.Annotations[0]: "main"}))
	path := filepath.Join(t.TempDir(), "x.tar")
	n.must(os.WriteFile(path, here, 0o600))
	var asked []string
	answer := func(err error) cri.Leave {
		return func(_ context.Context, names []string, id string) error {
			asked = append(asked, id)
			if !slices.Equal(names, slices.Concat(base.Tags, base.Digests)) {
				t.Errorf("asked for %q", names)
			}
			return err
		}
	}
	create := func(from string, leave cri.Leave) error {
		main := containerConfig("wait")
		main.Image.Image = from
		_, err := n.engine.CreateContainer(cri.WithLeave(t.Context(), leave), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
		return err
	}
	unknown := create(absent, answer(nil))
	if status.Code(unknown) != codes.NotFound || len(asked) > 0 {
		t.Errorf("an image that is not here: %v, asked %v", unknown, asked)
	}
	for name, c := range map[string]struct {
		from  string
		leave cri.Leave
		asks  int
		code  codes.Code
	}{
		"image, nobody to ask":   {ref, nil, 0, codes.NotFound},
		"image, refused":         {ref, answer(errors.New("no")), 1, codes.NotFound},
		"image, allowed":         {ref, answer(nil), 1, codes.Unknown}, // criu's refusal
		"archive, nobody to ask": {path, nil, 0, codes.Unknown},
		"archive, refused":       {path, answer(errors.New("no")), 1, codes.NotFound},
	} {
		asked = nil
		err := create(c.from, c.leave)
		if status.Code(err) != c.code || len(asked) != c.asks || c.asks > 0 && asked[0] != base.ID {
			t.Errorf("%s: %v, asked %v", name, err, asked)
		}
		told := strings.NewReplacer(path, absent, ref, absent).Replace(fmt.Sprint(err))
		if c.code == codes.NotFound && told != unknown.Error() {
			t.Errorf("%s tells that the image is here: %s, not %s", name, told, unknown)
		}
	}
}

// addNoted makes an image of one layer, with annotations.
func (n *node) addNoted(ref string, layer []byte, notes map[string]string) error {
	b, err := n.images.NewBuild()
	if err != nil {
		return err
	}
	defer b.Close()
	l, err := b.WriteLayer(bytes.NewReader(layer))
	if err != nil {
		return err
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}}
	_, err = b.Commit(n.t.Context(), config, []image.Layer{l}, image.Naming{Ref: ref, Annotations: notes})
	return err
}

// TestRestore takes a container through a checkpoint with the program itself, where the
// machine has one that works: out of an archive, and out of an image that holds one.
func TestRestore(t *testing.T) {
	if out, err := exec.CommandContext(t.Context(), "criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu is not here, or does not work on this kernel: %v: %s", err, bytes.TrimSpace(out))
	}
	n := newNode(t)
	id := n.waiting("before")
	to := filepath.Join(t.TempDir(), "checkpoint.tar")
	n.must(n.checkpoint(id, to, 0))
	content, err := os.ReadFile(to)
	n.must(err)
	const ref = "exam.test/checkpoint:1"
	n.must(n.addNoted(ref, content, map[string]string{archive.Annotations[0]: "main"}))
	for name, from := range map[string]string{"archive": to, "image": ref} {
		pod, main := podConfig("after-"+name), containerConfig("exit", "9")
		pod.Hostname, main.Image.Image = "after-"+name, from
		pod.LogDirectory, main.LogPath = filepath.Join(n.dir, "logs"), name+".log"
		s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
		n.must(err)
		leave := func(context.Context, []string, string) error { return nil }
		c, err := n.engine.CreateContainer(cri.WithLeave(t.Context(), leave), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
		n.must(err)
		if got := n.container(c.ContainerId).State; got != rt.ContainerState_CONTAINER_CREATED {
			t.Errorf("%s: it is %v before it is started", name, got)
		}
		_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
		n.must(err)
		n.runsOn(c.ContainerId)
		for cmd, want := range map[string]string{"cat /made": "by me", "hostname": "after-" + name} {
			r, err := n.engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: c.ContainerId, Cmd: append([]string{"/probe"}, strings.Fields(cmd)...)})
			n.must(err)
			if !strings.Contains(string(r.Stdout), want) {
				t.Errorf("%s: %s says %q, want %q", name, cmd, r.Stdout, want)
			}
		}
		_, err = n.engine.StopContainer(t.Context(), &rt.StopContainerRequest{ContainerId: c.ContainerId, Timeout: 30})
		n.must(err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		st, err := n.runtime.Wait(ctx, c.ContainerId)
		cancel()
		if err != nil || st.Unknown {
			t.Errorf("%s: it ended as %+v, %v", name, st, err)
		}
	}
	n.runsOn(id)
}
