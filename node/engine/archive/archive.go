// Package archive is the form of a container's checkpoint as a file: the tar that CRI-O,
// containerd, Podman and checkpointctl write and read. It has criu's images in a
// directory, what the container was in JSON beside them, and what it has changed of its
// files as a tar of its own.
//
// An archive may be anybody's. What is read of one are regular files with the names that
// there are, and nothing of it is believed.
package archive

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The names in an archive.
const (
	ConfigFile  = "config.dump"
	SpecFile    = "spec.dump"
	MountsFile  = "bind.mounts"
	ImagesDir   = "checkpoint"
	DiffFile    = "rootfs-diff.tar"
	DeletedFile = "deleted.files"
	DumpLog     = "dump.log"
	StatsFile   = "stats-dump"
	inventory   = "inventory.img"
)

// Annotations of an image that is an archive, by who looks at them. The value is the
// name of the container that was checkpointed.
var Annotations = []string{"org.criu.checkpoint.container.name", "io.kubernetes.cri-o.annotations.checkpoint.name"} //nolint:gochecknoglobals // a constant

const (
	// maxJSON bounds each of the JSON files: a specification has a few kilobytes.
	maxJSON = 16 << 20
	// maxFiles bounds how many files an archive has: criu writes some for each process.
	maxFiles = 1 << 18
	// MaxBytes bounds what an archive unpacks to: the memory of a container, and what it
	// has written.
	MaxBytes = 256 << 30
)

// ErrInvalid says that something is no archive of a checkpoint.
var ErrInvalid = errors.New("no checkpoint of a container")

// Config is ConfigFile: the members that others read and write.
type Config struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	// RootfsImage is the image as whoever asked for the container called it,
	// RootfsImageRef its ID, RootfsImageName one of its names.
	RootfsImage     string    `json:"rootfsImage,omitempty"`
	RootfsImageRef  string    `json:"rootfsImageRef,omitempty"`
	RootfsImageName string    `json:"rootfsImageName,omitempty"`
	OCIRuntime      string    `json:"runtime,omitempty"`
	CreatedTime     time.Time `json:"createdTime"`
	CheckpointedAt  time.Time `json:"checkpointedTime"`
	RestoredAt      time.Time `json:"restoredTime"`
	Restored        bool      `json:"restored"`
}

// BindMount is one entry of MountsFile: what the container had from outside.
type BindMount struct {
	Source      string `json:"source"`
	Destination string `json:"destination"`
	FileType    string `json:"file_type"`
	Permissions uint32 `json:"permissions"`
}

// Description is what an archive says of its container.
type Description struct {
	Config Config
	Spec   *specs.Spec
	Mounts []BindMount
}

// Describe writes the description into the directory that is to be packed.
func Describe(dir string, d Description) error {
	for _, f := range []struct {
		name  string
		value any
	}{{ConfigFile, d.Config}, {SpecFile, d.Spec}, {MountsFile, d.Mounts}} {
		if err := writeJSON(dir, f.name, f.value); err != nil {
			return err
		}
	}
	return nil
}

// Deleted writes what the container has deleted, if anything.
func Deleted(dir string, paths []string) error {
	if len(paths) == 0 {
		return nil
	}
	return writeJSON(dir, DeletedFile, paths)
}

func writeJSON(dir, name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %q: %w", name, err)
	}
	return os.WriteFile(filepath.Join(dir, name), b, 0o600)
}

// Pack writes the archive of what is in dir, in a fixed order. Nothing but the names of
// an archive is packed.
func Pack(dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	out := tar.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "." || !known(name, e.IsDir()) || !e.IsDir() && !e.Type().IsRegular() {
			return nil
		}
		return pack(out, root, name, e.IsDir())
	})
	if err != nil {
		return err
	}
	return out.Close()
}

func pack(out *tar.Writer, root *os.Root, name string, dir bool) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h := &tar.Header{Name: name, Mode: 0o600, Size: info.Size(), ModTime: info.ModTime(), Typeflag: tar.TypeReg, Format: tar.FormatPAX}
	if dir {
		h.Name, h.Mode, h.Size, h.Typeflag = name+"/", 0o700, 0, tar.TypeDir
	}
	if err := out.WriteHeader(h); err != nil || dir {
		return err
	}
	_, err = io.CopyN(out, f, h.Size)
	return err
}

// image is a name that criu gives, and what a runtime puts beside its images.
var image = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// known says whether a path is one that an archive has.
func known(name string, dir bool) bool {
	if dir {
		return name == ImagesDir
	}
	if below, ok := strings.CutPrefix(name, ImagesDir+"/"); ok {
		return image.MatchString(below) && len(below) < 256
	}
	return slices.Contains([]string{ConfigFile, SpecFile, MountsFile, DiffFile, DeletedFile, DumpLog, StatsFile}, name)
}

// Unpack writes what is of use in the archive into dir, which is made. A path that no
// archive has is passed over; a link, or a file in another's place, is none.
func Unpack(ctx context.Context, r io.Reader, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, ImagesDir), 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	in, files, left := tar.NewReader(r), 0, int64(MaxBytes)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		name := strings.TrimPrefix(filepath.Clean("/"+h.Name), "/")
		if files++; files > maxFiles {
			return fmt.Errorf("%w: more than %d files", ErrInvalid, maxFiles)
		}
		if h.Typeflag == tar.TypeDir || !known(name, false) {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return fmt.Errorf("%w: %q is no file", ErrInvalid, h.Name)
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("%w: more than %d bytes", ErrInvalid, int64(MaxBytes))
		}
		if err := unpack(root, name, in); err != nil {
			return err
		}
	}
}

func unpack(root *os.Root, name string, r io.Reader) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%w: %q is there twice", ErrInvalid, name)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, r); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrInvalid, name, err)
	}
	return f.Close()
}

// Read reads the description of what lies unpacked in dir, and makes sure that the images
// are regular files: a link among them would have criu read what it leads to.
func Read(dir string) (Description, error) {
	var d Description
	root, err := os.OpenRoot(dir)
	if err != nil {
		return d, err
	}
	defer root.Close()
	if err := readJSON(root, ConfigFile, &d.Config); err != nil {
		return d, err
	}
	if err := readJSON(root, SpecFile, &d.Spec); err != nil {
		return d, err
	}
	if d.Spec == nil {
		return d, fmt.Errorf("%w: %q is empty", ErrInvalid, SpecFile)
	}
	if err := readJSON(root, MountsFile, &d.Mounts); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return d, err
	}
	return d, regular(root)
}

// regular looks at the images.
func regular(root *os.Root) error {
	info, err := root.Lstat(ImagesDir)
	if err != nil || !info.IsDir() {
		return fmt.Errorf("%w: there is no directory %q", ErrInvalid, ImagesDir)
	}
	found := false
	err = fs.WalkDir(root.FS(), ImagesDir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || name == ImagesDir {
			return err
		}
		if !e.Type().IsRegular() || !known(name, false) {
			return fmt.Errorf("%w: %q is no image", ErrInvalid, name)
		}
		found = found || filepath.Base(name) == inventory
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("%w: there is no %q", ErrInvalid, filepath.Join(ImagesDir, inventory))
	}
	return err
}

// ReadDeleted reads what the container has deleted.
func ReadDeleted(dir string) ([]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var paths []string
	err = readJSON(root, DeletedFile, &paths)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return paths, err
}

// OpenDiff opens what the container has changed of its files; nil is nothing.
func OpenDiff(dir string) (*os.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := open(root, DiffFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func readJSON(root *os.Root, name string, v any) error {
	f, err := open(root, name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxJSON+1))
	if err != nil {
		return err
	}
	if len(b) > maxJSON {
		return fmt.Errorf("%w: %q has more than %d bytes", ErrInvalid, name, maxJSON)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrInvalid, name, err)
	}
	return nil
}

// open opens a regular file.
func open(root *os.Root, name string) (*os.File, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %q is no file", ErrInvalid, name)
	}
	return root.Open(name)
}
