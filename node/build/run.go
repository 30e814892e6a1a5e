package build

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// runTail is how much of a failed command's output its error repeats, in bytes.
const runTail = 2048

// runCommand executes RUN and keeps what it changed as a layer.
func (b *builder) runCommand(ctx context.Context, st *stage, s step, cmd *instructions.RunCommand) (bool, error) {
	if b.opts.Runner == nil {
		return false, fmt.Errorf("RUN needs root and a Linux machine: %w", ErrUnsupported)
	}
	if len(instructions.GetMounts(cmd)) > 0 {
		return false, fmt.Errorf("RUN --mount: %w", ErrUnsupported)
	}
	run, err := st.command(cmd)
	if err != nil {
		return false, err
	}
	return b.cached(st, change{instruction: fmt.Sprintf("RUN %q %q %q", run.Args, run.Env, run.User)}, func() (image.Layer, error) {
		return b.execute(ctx, st, s, run)
	})
}

// command is the process that a RUN asks for.
func (st *stage) command(cmd *instructions.RunCommand) (Run, error) {
	c := st.config.Config
	run := Run{WorkingDir: cmp.Or(c.WorkingDir, "/"), User: c.User, NetworkNone: instructions.GetNetwork(cmd) == instructions.NetworkNone}
	run.Args = cmd.CmdLine
	if cmd.PrependShell {
		run.Args = append(slices.Clone(st.shell), strings.Join(cmd.CmdLine, " "))
	}
	if len(cmd.Files) > 0 {
		if len(cmd.Files) != 1 || !cmd.PrependShell {
			return run, fmt.Errorf("a RUN with several heredocs: %w", ErrUnsupported)
		}
		run.Args = append(slices.Clone(st.shell), cmd.Files[0].Data)
	}
	env := slices.Clone(c.Env)
	for _, k := range slices.Sorted(maps.Keys(st.args)) {
		if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, k+"=") }) {
			env = append(env, k+"="+st.args[k])
		}
	}
	if !slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	run.Env = env
	return run, nil
}

// execute runs the command over the stage's layers and packs its changes.
func (b *builder) execute(ctx context.Context, st *stage, s step, run Run) (image.Layer, error) {
	lower, err := b.content.Unpack(ctx, st.layers)
	if err != nil {
		return image.Layer{}, err
	}
	if len(lower) == 0 {
		return image.Layer{}, fmt.Errorf("RUN in an image without files: %w", image.ErrInvalid)
	}
	if run.UID, run.GID, err = b.account(ctx, st, run.User); err != nil {
		return image.Layer{}, err
	}
	if err := os.MkdirAll(b.opts.Cache, 0o700); err != nil {
		return image.Layer{}, err
	}
	// Beside the cache: overlayfs cannot have its upper directory on overlayfs,
	// which a temporary directory may be.
	dir, err := os.MkdirTemp(b.opts.Cache, "run-*")
	if err != nil {
		return image.Layer{}, err
	}
	defer os.RemoveAll(dir)
	run.Lower, run.Upper, run.Work = lower, filepath.Join(dir, "upper"), filepath.Join(dir, "work")
	for _, d := range []string{run.Upper, run.Work} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return image.Layer{}, err
		}
	}
	var tail []byte
	run.Output = func(p []byte) {
		tail = append(tail, p...)
		tail = tail[max(0, len(tail)-runTail):]
		event := s.event
		event.Output = p
		b.opts.Progress(event)
	}
	if err := b.opts.Runner.Run(ctx, run); err != nil {
		var exit *ExitError
		if errors.As(err, &exit) {
			exit.Tail = string(tail)
		}
		return image.Layer{}, err
	}
	return b.pack(ctx, run.Upper)
}

// account finds the IDs of a USER ("name", "name:group" or numbers) in the image.
func (b *builder) account(ctx context.Context, st *stage, user string) (uid, gid uint32, err error) {
	if user == "" {
		return 0, 0, nil
	}
	v, err := b.view(ctx, st.layers)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = v.Close() }()
	o, err := transfer{chown: user}.owner(v)
	if err != nil {
		return 0, 0, fmt.Errorf("USER %s: %w", user, err)
	}
	if _, err := strconv.Atoi(user); err == nil {
		o.gid = 0 // a bare number says nothing of a group
	}
	return uint32(o.uid), uint32(o.gid), nil //nolint:gosec // both come from 32-bit columns or fail in the kernel
}

// pack turns an overlayfs upper directory into a layer.
func (b *builder) pack(ctx context.Context, upper string) (image.Layer, error) {
	reader, writer := io.Pipe()
	go func() {
		w := newLayerWriter(ctx, writer, b.opts.Epoch)
		writer.CloseWithError(w.finish(w.upper(upper)))
	}()
	defer func() { _ = reader.Close() }() // never fails
	return b.content.WriteLayer(reader)
}

// upper writes every change that lies in an overlayfs upper directory; deletions
// become whiteouts as the OCI image specification spells them.
func (w *layerWriter) upper(dir string) error {
	links := map[uint64]string{}
	return filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		name := strings.TrimPrefix(p, dir+"/")
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0 {
			return w.header(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(path.Dir(name), ".wh."+path.Base(name)), ModTime: w.now()})
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return w.changed(p, name, changed{info: info, st: st, links: links})
	})
}

// changed is one file of an upper directory.
type changed struct {
	info  fs.FileInfo
	st    unix.Stat_t
	links map[uint64]string
}

// changed writes one file or directory with owner, mode, links and xattrs.
func (w *layerWriter) changed(p, name string, c changed) error {
	target := ""
	if c.info.Mode()&os.ModeSymlink != 0 {
		var err error
		if target, err = os.Readlink(p); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(c.info, target)
	if err != nil {
		return nil // a socket
	}
	h.Name, h.Uid, h.Gid = name, int(c.st.Uid), int(c.st.Gid)
	if c.info.IsDir() {
		h.Name += "/"
	}
	if c.info.Mode().IsRegular() && c.st.Nlink > 1 {
		if first, ok := c.links[c.st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
			return w.header(h)
		}
		c.links[c.st.Ino] = name
	}
	h.PAXRecords = capabilities(p)
	if err := w.header(h); err != nil {
		return err
	}
	if c.info.IsDir() && opaque(p) {
		return w.header(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(name, ".wh..wh..opq"), ModTime: w.now()})
	}
	if !c.info.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(w.tar, f, h.Size)
	return err
}

// opaque says whether a directory of an upper hides what is below it.
func opaque(p string) bool {
	var value [1]byte
	n, err := unix.Lgetxattr(p, "trusted.overlay.opaque", value[:])
	return err == nil && n == 1 && value[0] == 'y'
}

// capabilities is the one extended attribute that images carry.
func capabilities(p string) map[string]string {
	var value [64]byte
	n, err := unix.Lgetxattr(p, "security.capability", value[:])
	if err != nil || n <= 0 {
		return nil
	}
	return map[string]string{"SCHILY.xattr.security.capability": string(value[:n])}
}
