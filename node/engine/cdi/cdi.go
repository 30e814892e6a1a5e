// Package cdi puts devices into containers by the Container Device Interface
// (CDI 1.1): a vendor's plugin leaves files that say what a device named
// vendor/class=name means for a container, and whoever asks for the device by
// that name gets those edits in his OCI specification. Files are read anew for
// each container that names a device: nothing is watched, nothing is kept.
package cdi

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// DefaultDirs are where files are looked for; a later directory's devices go
// before an earlier one's of the same name.
var DefaultDirs = []string{"/etc/cdi", "/var/run/cdi"} //nolint:gochecknoglobals // a constant list

// Limits of what is read.
const (
	maxFile  = 8 << 20
	maxFiles = 1024 // a directory
)

// versions are those of the format that are understood.
var versions = []string{"0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"}

// File is one file: the devices of one kind.
type File struct {
	Version        string   `json:"cdiVersion"`
	Kind           string   `json:"kind"`
	Devices        []Device `json:"devices"`
	ContainerEdits Edits    `json:"containerEdits,omitempty"`
	// Annotations are of all its devices; what they mean is for their readers.
	Annotations map[string]any `json:"annotations,omitempty"`

	path     string
	priority int
}

// Device is one that containers may ask for.
type Device struct {
	Name           string `json:"name"`
	ContainerEdits Edits  `json:"containerEdits"`
	// Annotations go before those of the file.
	Annotations map[string]any `json:"annotations,omitempty"`
}

// Edits are what becomes of a container's specification.
type Edits struct {
	Env            []string     `json:"env,omitempty"`
	DeviceNodes    []DeviceNode `json:"deviceNodes,omitempty"`
	NetDevices     []NetDevice  `json:"netDevices,omitempty"`
	Hooks          []Hook       `json:"hooks,omitempty"`
	Mounts         []Mount      `json:"mounts,omitempty"`
	IntelRdt       *struct{}    `json:"intelRdt,omitempty"`
	AdditionalGIDs []uint32     `json:"additionalGids,omitempty"`
}

// DeviceNode is a node in the container's /dev. What is left out is the host's.
type DeviceNode struct {
	Path        string       `json:"path"`
	HostPath    string       `json:"hostPath,omitempty"`
	Type        string       `json:"type,omitempty"`
	Major       int64        `json:"major,omitempty"`
	Minor       int64        `json:"minor,omitempty"`
	FileMode    *os.FileMode `json:"fileMode,omitempty"`
	Permissions string       `json:"permissions,omitempty"`
	UID         *uint32      `json:"uid,omitempty"`
	GID         *uint32      `json:"gid,omitempty"`
}

// NetDevice is an interface of the host that moves into the container.
type NetDevice struct {
	HostInterfaceName string `json:"hostInterfaceName"`
	Name              string `json:"name"`
}

// Mount is one of the host's files or directories.
type Mount struct {
	HostPath      string   `json:"hostPath"`
	ContainerPath string   `json:"containerPath"`
	Options       []string `json:"options,omitempty"`
	Type          string   `json:"type,omitempty"`
}

// Hook is a program that runs at a moment of the container's life.
type Hook struct {
	HookName string   `json:"hookName"`
	Path     string   `json:"path"`
	Args     []string `json:"args,omitempty"`
	Env      []string `json:"env,omitempty"`
	Timeout  *int     `json:"timeout,omitempty"`
}

// Devices are those of all files, by their full names.
type Devices struct {
	byName map[string]found
	// problems are of files that could not be used, and of names that are nobody's
	// because two files of one directory have them.
	problems []error
}

type found struct {
	file   *File
	device *Device
}

// Read reads the files of dirs. What is wrong with one file does not keep others
// from being used; a device that is missed afterwards tells of it.
func Read(dirs []string) *Devices {
	d := &Devices{byName: map[string]found{}}
	torn := map[string]bool{}
	for priority, dir := range dirs {
		names, err := list(dir)
		if err != nil {
			d.problems = append(d.problems, err)
		}
		for _, name := range names {
			f, err := readFile(filepath.Join(dir, name))
			if err != nil {
				d.problems = append(d.problems, err)
				continue
			}
			f.priority = priority
			d.add(f, torn)
		}
	}
	for name := range torn {
		delete(d.byName, name)
	}
	return d
}

func (d *Devices) add(f *File, torn map[string]bool) {
	for i := range f.Devices {
		name := f.Kind + "=" + f.Devices[i].Name
		old, taken := d.byName[name]
		if taken && old.file.priority == f.priority {
			d.problems = append(d.problems, fmt.Errorf("conflicting device %q (specs %q, %q)", name, old.file.path, f.path))
			torn[name] = true
			continue
		}
		delete(torn, name) // a directory that goes before decides
		d.byName[name] = found{f, &f.Devices[i]}
	}
}

// list are the names of a directory's files, in order. One that is not there is empty.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read CDI directory %q: %w", dir, err)
	}
	var names []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".json" || ext == ".yaml" {
			names = append(names, e.Name())
		}
	}
	if len(names) > maxFiles {
		return names[:maxFiles], fmt.Errorf("CDI directory %q has more than %d files", dir, maxFiles)
	}
	return names, nil
}

func readFile(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return nil, fmt.Errorf("CDI file %q: is no file of at most %d bytes", path, maxFile)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &File{path: path}
	if err := yaml.UnmarshalStrict(b, f); err != nil && len(b) > 0 {
		// A later version may have more.
		if err = yaml.Unmarshal(b, f); err != nil {
			return nil, fmt.Errorf("CDI file %q: %w", path, err)
		}
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("CDI file %q: %w", path, err)
	}
	return f, nil
}

var (
	vendorForm = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$`)
	classForm  = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?$`)
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?$`)
)

// Qualified tells whether name has the form vendor/class=device.
func Qualified(name string) bool {
	kind, device, ok := strings.Cut(name, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && vendorForm.MatchString(vendor) && classForm.MatchString(class) && nameForm.MatchString(device)
}

func (f *File) check() error {
	if !slices.Contains(versions, strings.TrimPrefix(f.Version, "v")) {
		return fmt.Errorf("version %q is not one of %s", f.Version, strings.Join(versions, ", "))
	}
	if !Qualified(f.Kind + "=0") {
		return fmt.Errorf("kind %q is not of the form vendor/class", f.Kind)
	}
	if len(f.Devices) == 0 {
		return errors.New("has no devices")
	}
	if err := f.ContainerEdits.check(); err != nil {
		return err
	}
	names := map[string]bool{}
	for i := range f.Devices {
		d := &f.Devices[i]
		if !nameForm.MatchString(d.Name) || names[d.Name] {
			return fmt.Errorf("device name %q is invalid or there twice", d.Name)
		}
		names[d.Name] = true
		if err := d.ContainerEdits.check(); err != nil {
			return fmt.Errorf("device %q: %w", d.Name, err)
		}
	}
	return nil
}

// moments are when hooks run.
var moments = []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}

func (e *Edits) check() error {
	for _, kv := range e.Env {
		if strings.IndexByte(kv, '=') <= 0 {
			return fmt.Errorf("environment variable %q is not NAME=VALUE", kv)
		}
	}
	for _, n := range e.DeviceNodes {
		if !filepath.IsAbs(n.Path) || !slices.Contains([]string{"", "b", "c", "u", "p"}, n.Type) || strings.Trim(n.Permissions, "rwm") != "" {
			return fmt.Errorf("device node %q, type %q, permissions %q: is invalid", n.Path, n.Type, n.Permissions)
		}
	}
	for _, m := range e.Mounts {
		if m.HostPath == "" || m.ContainerPath == "" {
			return fmt.Errorf("mount of %q on %q: both paths are needed", m.HostPath, m.ContainerPath)
		}
	}
	for _, h := range e.Hooks {
		if !slices.Contains(moments, h.HookName) || h.Path == "" {
			return fmt.Errorf("hook %q with path %q: is invalid", h.HookName, h.Path)
		}
	}
	return nil
}

// Names are all devices that may be asked for, in order.
func (d *Devices) Names() []string { return slices.Sorted(maps.Keys(d.byName)) }
