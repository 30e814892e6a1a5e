package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// imageTurns is how often each program takes in the image.
const imageTurns = 5

// imageParts are this machine's own files, of which the image is made: large ones,
// and many small ones. Each is a layer of at most so many megabytes.
var imageParts = []struct {
	dir string
	mb  int64
}{{"/usr/bin", 120}, {"/usr/lib", 120}, {"/usr/share", 120}}

// big is an image on disk.
type big struct {
	// layout is a directory, archive the same as one tar: an OCI layout.
	layout, archive string
	bytes           int64 // unpacked
	files           int
}

const bigName = "localhost/bench:1"

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

// makeBig makes the image of this machine's files.
func makeBig(dir string) (big, error) {
	b := big{layout: filepath.Join(dir, "layout"), archive: filepath.Join(dir, "image.tar")}
	blobs := filepath.Join(b.layout, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return b, err
	}
	put := func(kind string, v any) (ocispec.Descriptor, error) {
		raw, err := json.Marshal(v)
		d := digest.FromBytes(raw)
		return ocispec.Descriptor{MediaType: kind, Digest: d, Size: int64(len(raw))}, errors.Join(err, os.WriteFile(filepath.Join(blobs, d.Encoded()), raw, 0o644))
	}
	config := ocispec.Image{Platform: ocispec.Platform{Architecture: "amd64", OS: "linux"}, RootFS: ocispec.RootFS{Type: "layers"}}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, part := range imageParts {
		layer, diff, err := b.layer(part.dir, part.mb<<20, blobs)
		if err != nil {
			return b, fmt.Errorf("layer of %q: %w", part.dir, err)
		}
		manifest.Layers, config.RootFS.DiffIDs = append(manifest.Layers, layer), append(config.RootFS.DiffIDs, diff)
	}
	var err error
	if manifest.Config, err = put(ocispec.MediaTypeImageConfig, config); err != nil {
		return b, err
	}
	named, err := put(ocispec.MediaTypeImageManifest, manifest)
	if err != nil {
		return b, err
	}
	named.Annotations = map[string]string{ocispec.AnnotationRefName: "1", "io.containerd.image.name": bigName}
	raw, err := json.Marshal(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []ocispec.Descriptor{named}})
	err = errors.Join(err, os.WriteFile(filepath.Join(b.layout, "index.json"), raw, 0o644),
		os.WriteFile(filepath.Join(b.layout, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
	if err != nil {
		return b, err
	}
	out, err := exec.Command("tar", "-C", b.layout, "-cf", b.archive, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("tar: %w: %s", err, out)
	}
	return b, err
}

// layer packs files of a directory until they are limit bytes.
func (b *big) layer(from string, limit int64, blobs string) (ocispec.Descriptor, digest.Digest, error) {
	f, err := os.CreateTemp(blobs, "layer-*")
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	defer f.Close()
	packed, plain := sha256.New(), sha256.New()
	z := gzip.NewWriter(io.MultiWriter(f, packed))
	t := tar.NewWriter(io.MultiWriter(z, plain))
	left := limit
	err = filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err == nil && left < 0 {
			err = filepath.SkipAll
		}
		if err != nil {
			return err
		}
		n, err := addFile(t, path, e)
		left, b.bytes, b.files = left-n, b.bytes+n, b.files+1
		return err
	})
	if err := errors.Join(err, t.Close(), z.Close()); err != nil {
		return ocispec.Descriptor{}, "", err
	}
	info, err := f.Stat()
	if err != nil {
		return ocispec.Descriptor{}, "", err
	}
	d := digestOf(packed)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: info.Size()}, digestOf(plain), os.Rename(f.Name(), filepath.Join(blobs, d.Encoded()))
}

func digestOf(h hash.Hash) digest.Digest { return digest.NewDigest(digest.SHA256, h) }

// addFile packs one file, directory or link.
func addFile(t *tar.Writer, path string, e fs.DirEntry) (int64, error) {
	info, err := e.Info()
	if err != nil {
		return 0, err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return 0, err
		}
	}
	h, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return 0, err
	}
	if h.Name = strings.TrimPrefix(path, "/"); info.IsDir() {
		h.Name += "/"
	}
	if err := t.WriteHeader(h); err != nil || !info.Mode().IsRegular() {
		return 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return io.Copy(t, f)
}

// price is what one run took.
type price struct{ wall, processor time.Duration }

// prices are the costs of programs that took turns.
type prices map[string][]price

// run runs a program and adds what it costs. more is the processor time of a daemon
// that works for it, nil for none.
func (t prices) run(ctx context.Context, name string, more func() time.Duration, argv ...string) error {
	before := time.Duration(0)
	if more != nil {
		before = more()
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, out)
	}
	c := price{wall: time.Since(begin), processor: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if more != nil {
		c.processor += more() - before
	}
	t[name] = append(t[name], c)
	return nil
}

// median is the middle of the times, by themselves, and of the processor's.
func (t prices) median(name string) price {
	pick := func(of func(price) time.Duration) time.Duration {
		var all []time.Duration
		for _, c := range t[name] {
			all = append(all, of(c))
		}
		slices.Sort(all)
		return all[len(all)/2]
	}
	return price{pick(func(c price) time.Duration { return c.wall }), pick(func(c price) time.Duration { return c.processor })}
}

// show gives the medians, and with bytes a rate.
func (t prices) show(name string, bytes int64) string {
	m := t.median(name)
	text := fmt.Sprintf("%.0f ms median, %.0f ms of processor", milli(m.wall), milli(m.processor))
	if bytes > 0 {
		text += fmt.Sprintf(", %.0f MB/s", float64(bytes)/1e6/m.wall.Seconds())
	}
	return text
}

// ratio is what a takes of b.
func (t prices) ratio(a, b string) string {
	x, y := t.median(a), t.median(b)
	return fmt.Sprintf("%.2f by medians, %.2f by processor time", milli(x.wall)/milli(y.wall), milli(x.processor)/milli(y.processor))
}
