package main

import (
	"archive/tar"
	"bytes"
	"context"
	order "encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// busyboxEnv names the program that the process outside the namespace has found.
const busyboxEnv = "SAMPAN_BENCH_BUSYBOX"

// Images of the measurements with containers: one with Debian's busybox as its only
// program, and what containerd wants for its sandboxes, which is as small as can be.
const (
	busyboxImage = "bench.test/busybox:1"
	pauseImage   = "bench.test/pause:1"
)

// onBusybox are the measurements whose containers run busybox.
var onBusybox = []string{"cri", "density"}

// findBusybox gives the path of Debian's busybox-static: the installed one, or one
// that apt-get downloads into dir. The namespace has no way to a mirror, so this
// happens outside of it.
func findBusybox(dir string) (string, error) {
	const installed = "/bin/busybox"
	if _, err := exec.LookPath("dpkg"); err != nil {
		return "", err
	}
	if exec.Command("dpkg", "--status", "busybox-static").Run() == nil {
		return installed, nil
	}
	for _, argv := range [][]string{
		{"apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", "busybox-static"},
		{"sh", "-c", "dpkg-deb --extract busybox-static_*.deb ."},
	} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("busybox-static: %w: %s", err, out)
		}
	}
	return filepath.Join(dir, "bin/busybox"), nil
}

// wantsBusybox says whether one of the chosen measurements does.
func wantsBusybox(only string) bool {
	return only == "" || slices.ContainsFunc(onBusybox, func(m string) bool { return slices.Contains(strings.Split(only, ","), m) })
}

// makeImages makes both images in a store of ours at root, and saves them in the
// file archive, from which any engine takes them.
func makeImages(ctx context.Context, root, archive string) error {
	store, err := image.Open(image.Config{Root: root})
	if err != nil {
		return err
	}
	busybox, err := os.ReadFile(os.Getenv(busyboxEnv))
	if err != nil {
		return err
	}
	for _, i := range []struct {
		ref, path string
		program   []byte
	}{{busyboxImage, "bin/busybox", busybox}, {pauseImage, "pause", forever()}} {
		if err := makeImage(ctx, store, i.ref, i.path, i.program); err != nil {
			return fmt.Errorf("image %q: %w", i.ref, err)
		}
	}
	f, err := os.Create(archive)
	if err != nil {
		return err
	}
	return errors.Join(store.Save(f, busyboxImage, pauseImage), f.Close())
}

func makeImage(ctx context.Context, store *image.Store, ref, path string, program []byte) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, d := range []string{"bin/", "etc/", "proc/", "sys/", "dev/", "tmp/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: d, Mode: 0o755}); err != nil {
			return err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o755, Size: int64(len(program))}); err != nil {
		return err
	}
	if _, err := w.Write(program); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	b, err := store.NewBuild()
	if err != nil {
		return err
	}
	defer b.Close()
	made, err := b.WriteLayer(&layer)
	if err != nil {
		return err
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: ocispec.ImageConfig{Entrypoint: []string{"/" + path}}}
	_, err = b.Commit(ctx, config, []image.Layer{made}, image.Naming{Ref: ref})
	return err
}

// exitZero is the smallest program: exit_group(0), for amd64.
func exitZero() []byte {
	return program([]byte{0xb8, 231, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05}) // mov eax, exit_group; xor edi, edi; syscall
}

// forever is one that waits for signals until one ends it, for amd64.
func forever() []byte {
	return program([]byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}) // mov eax, pause; syscall; jmp to the first
}

// program is a static executable of nothing but its code.
func program(code []byte) []byte {
	const address, headers = 0x400000, 64 + 56
	le := order.LittleEndian
	out := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	out = le.AppendUint16(le.AppendUint16(out, 2), 62) // ET_EXEC, EM_X86_64
	out = le.AppendUint32(out, 1)
	for _, n := range []uint64{address + headers, 64, 0} {
		out = le.AppendUint64(out, n)
	}
	out = le.AppendUint32(out, 0)
	for _, n := range []uint16{64, 56, 1, 0, 0, 0} {
		out = le.AppendUint16(out, n)
	}
	out = le.AppendUint32(le.AppendUint32(out, 1), 5) // PT_LOAD, readable and executable
	size := uint64(headers + len(code))
	for _, n := range []uint64{0, address, address, size, size, 0x1000} {
		out = le.AppendUint64(out, n)
	}
	return append(out, code...)
}
