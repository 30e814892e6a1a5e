package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// imageTurns is how often each program takes in the image.
const imageTurns = 5

// unpack measures how fast an image's archive becomes layers that containers can
// be made of, beside containerd's import, which does the same.
func unpack(ctx context.Context) ([]row, error) {
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	img, err := makeBig(dir)
	if err != nil {
		return nil, err
	}
	took := prices{}
	for i := range imageTurns {
		data := filepath.Join(dir, "sampan")
		if err := took.run(ctx, "sampan", nil, binary, "load", "--data-dir", data, "-i", img.archive); err != nil {
			return nil, err
		}
		if err := os.RemoveAll(data); err != nil {
			return nil, err
		}
		if _, err := exec.LookPath("containerd"); err != nil {
			continue
		}
		if err := ctrImport(ctx, took, filepath.Join(dir, "c"+strconv.Itoa(i)), img.archive); err != nil {
			return nil, err
		}
	}
	what := fmt.Sprintf("%d MB in %d files and %d layers", img.bytes>>20, img.files, len(imageParts))
	rows := []row{{"sampan load, " + what, took.show("sampan", img.bytes), ""}}
	if len(took["containerd"]) > 0 {
		rows = append(rows, row{"ctr image import of it", took.show("containerd", img.bytes), ""},
			row{"… sampan's rate of containerd's", took.ratio("containerd", "sampan"), ">= 2"})
	}
	return rows, nil
}

// ctrImport has a containerd of its own, with nothing in it, import an archive.
func ctrImport(ctx context.Context, took prices, dir, archive string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	config := filepath.Join(dir, "config.toml")
	text := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n", dir+"/root", dir+"/state", dir+"/s")
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	daemon := exec.CommandContext(ctx, "containerd", "--config", config, "--log-level", "error")
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		return err
	}
	defer func() {
		_ = daemon.Process.Signal(syscall.SIGTERM) // it is our own, and waited for
		_ = daemon.Wait()
	}()
	if err := reachable(ctx, "unix", dir+"/s"); err != nil {
		return fmt.Errorf("containerd: %w", err)
	}
	used := func() time.Duration { return processor(filepath.Join("/proc", strconv.Itoa(daemon.Process.Pid))) }
	return took.run(ctx, "containerd", used, "ctr", "-a", dir+"/s", "image", "import", archive)
}

// pull measures how fast an image comes from a registry (Debian's), beside skopeo,
// which only stores what comes; sampan also unpacks it.
func pull(ctx context.Context) ([]row, error) {
	for _, program := range []string{"docker-registry", "skopeo"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, nil // Debian's peers are not here
		}
	}
	dir, err := os.MkdirTemp("/var/tmp", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	img, err := makeBig(dir)
	if err != nil {
		return nil, err
	}
	at, end, err := registry(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer end()
	push := exec.CommandContext(ctx, "skopeo", "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", "oci:"+img.layout+":1", "docker://"+at+"/bench:1")
	if out, err := push.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("skopeo: %w: %s", err, out)
	}
	took := prices{}
	for range imageTurns {
		ours, theirs := filepath.Join(dir, "sampan"), filepath.Join(dir, "skopeo")
		err := errors.Join(
			took.run(ctx, "sampan", nil, binary, "pull", "--data-dir", ours, "-q", at+"/bench:1"),
			took.run(ctx, "skopeo", nil, "skopeo", "--insecure-policy", "copy", "-q", "--src-tls-verify=false", "docker://"+at+"/bench:1", "oci:"+theirs+":1"),
			os.RemoveAll(ours), os.RemoveAll(theirs))
		if err != nil {
			return nil, err
		}
	}
	return []row{
		{fmt.Sprintf("sampan pull, and unpack, %d MB", img.bytes>>20), took.show("sampan", img.bytes), ""},
		{"skopeo copy of it to a layout, packed", took.show("skopeo", img.bytes), ""},
		{"… sampan's time of skopeo's", took.ratio("sampan", "skopeo"), ""},
	}, nil
}

// registry starts Debian's registry on a port that is free.
func registry(ctx context.Context, dir string) (at string, end func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	at = l.Addr().String()
	l.Close() // nobody else is in this network namespace
	config := filepath.Join(dir, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: %q}\n", dir+"/registry", at)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	daemon := exec.CommandContext(ctx, "docker-registry", "serve", config)
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		return "", nil, err
	}
	end = func() {
		_ = daemon.Process.Kill() // it is our own, and waited for
		_ = daemon.Wait()
	}
	if err := reachable(ctx, "tcp", at); err != nil {
		end()
		return "", nil, fmt.Errorf("docker-registry: %w", err)
	}
	return at, end, nil
}

// reachable waits until somebody listens.
func reachable(ctx context.Context, network, at string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		conn, err := net.Dial(network, at)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(20 * time.Millisecond):
		}
	}
}
