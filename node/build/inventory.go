package build

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of what is read of an image for its list of packages.
const (
	// maxDatabase bounds a database of packages in bytes.
	maxDatabase = 128 << 20
	// maxProgram bounds the programs that are looked at.
	maxProgram = 2 << 30
	// maxParts bounds the packages.
	maxParts = 100_000
)

// inventory is what was found in an image.
type inventory struct {
	parts []part
	// rpm: there is a database that was not read.
	rpm bool
	// distro and release are os-release's ID and VERSION_ID.
	distro, release string
}

// rpmDatabases are where RPM has its own.
var rpmDatabases = []string{ //nolint:gochecknoglobals // a constant list
	"var/lib/rpm/Packages", "var/lib/rpm/Packages.db", "var/lib/rpm/rpmdb.sqlite",
	"usr/lib/sysimage/rpm/Packages", "usr/lib/sysimage/rpm/Packages.db", "usr/lib/sysimage/rpm/rpmdb.sqlite",
}

// takeInventory looks for packages in the files of an image, and believes them nothing:
// what makes no sense is left out.
func takeInventory(ctx context.Context, root *os.Root) (inventory, error) {
	var v inventory
	for _, file := range []string{"etc/os-release", "usr/lib/os-release"} {
		raw, err := readRegular(root, file)
		if err == nil {
			v.distro, v.release = osRelease(raw)
			break
		}
	}
	dpkg := []string{"var/lib/dpkg/status"}
	if entries, err := fs.ReadDir(root.FS(), "var/lib/dpkg/status.d"); err == nil { // as images without dpkg have it
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".md5sums") {
				dpkg = append(dpkg, path.Join("var/lib/dpkg/status.d", e.Name()))
			}
		}
	}
	for _, file := range dpkg {
		if err := v.database(root, file, v.deb); err != nil {
			return v, err
		}
	}
	for _, file := range []string{"lib/apk/db/installed", "usr/lib/apk/db/installed"} {
		if err := v.database(root, file, v.apk); err != nil {
			return v, err
		}
	}
	for _, file := range rpmDatabases {
		if _, err := root.Stat(file); err == nil {
			v.rpm = true
		}
	}
	return v, v.programs(ctx, root)
}

// readRegular reads a file, if it is one: what an image has at a place may be a pipe.
func readRegular(root *os.Root, file string) ([]byte, error) {
	info, err := root.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fs.ErrNotExist
	}
	if info.Size() > maxDatabase {
		return nil, fmt.Errorf("%s: %d bytes, at most %d: %w", file, info.Size(), maxDatabase, image.ErrTooLarge)
	}
	f, err := root.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxDatabase))
}

// osRelease reads ID and VERSION_ID (os-release(5)).
func osRelease(raw []byte) (id, version string) {
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		value = strings.Trim(value, `"'`)
		switch key {
		case "ID":
			id = value
		case "VERSION_ID":
			version = value
		}
	}
	return id, version
}

// database reads a file of stanzas, of which one makes a part; one that is not there has none.
func (v *inventory) database(root *os.Root, file string, one func(map[string]string) (part, bool)) error {
	raw, err := readRegular(root, file)
	if errors.Is(err, image.ErrTooLarge) {
		return err
	}
	if err != nil {
		return nil //nolint:nilerr // not there, or not to be followed
	}
	for _, stanza := range stanzas(raw) {
		p, ok := one(stanza)
		if !ok {
			continue
		}
		p.where = []string{"/" + file}
		if err := v.add(p); err != nil {
			return err
		}
	}
	return nil
}

func (v *inventory) add(p part) error {
	if len(v.parts) >= maxParts {
		return fmt.Errorf("more than %d packages: %w", maxParts, image.ErrTooLarge)
	}
	v.parts = append(v.parts, p)
	return nil
}

// stanzas reads lines "key:value" in groups with empty lines between them, as both databases
// have them. Lines that go on with the one before are left out.
func stanzas(raw []byte) []map[string]string {
	var all []map[string]string
	stanza := map[string]string{}
	lines := bufio.NewScanner(bytes.NewReader(raw))
	lines.Buffer(nil, maxDatabase)
	for lines.Scan() {
		line := lines.Text()
		if line == "" && len(stanza) > 0 {
			all, stanza = append(all, stanza), map[string]string{}
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || key == "" || key[0] == ' ' || key[0] == '\t' {
			continue
		}
		if _, twice := stanza[key]; !twice {
			stanza[key] = strings.TrimSpace(value)
		}
	}
	if len(stanza) > 0 {
		all = append(all, stanza)
	}
	return all
}

// deb is a package of dpkg, if it is installed (deb-control(5), dpkg-query's "status").
func (v *inventory) deb(s map[string]string) (part, bool) {
	name, version := s["Package"], s["Version"]
	if status, ok := s["Status"]; ok && !strings.HasSuffix(status, " installed") || name == "" || version == "" {
		return part{}, false
	}
	source, _, _ := strings.Cut(s["Source"], " ")
	distro := v.distro
	if distro == "" {
		distro = "debian"
	}
	return part{
		name: name, version: version, supplier: s["Maintainer"],
		purl: purl("deb/"+percent(distro), percent(name), version,
			[2]string{"arch", s["Architecture"]}, [2]string{"distro", v.called()}, [2]string{"upstream", source}),
	}, true
}

// apk is a package of Alpine's (apk-package(5)).
func (v *inventory) apk(s map[string]string) (part, bool) {
	name, version := s["P"], s["V"]
	if name == "" || version == "" {
		return part{}, false
	}
	distro := v.distro
	if distro == "" {
		distro = "alpine"
	}
	origin := s["o"]
	if origin == name {
		origin = ""
	}
	return part{
		name: name, version: version, supplier: s["m"], license: s["L"],
		purl: purl("apk/"+percent(distro), percent(name), version,
			[2]string{"arch", s["A"]}, [2]string{"distro", v.called()}, [2]string{"upstream", origin}),
	}, true
}

// called is the distribution with its release.
func (v *inventory) called() string {
	if v.distro == "" || v.release == "" {
		return v.distro
	}
	return v.distro + "-" + v.release
}

// programs looks at every program for what Go's linker has left in it.
func (v *inventory) programs(ctx context.Context, root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(file string, e fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil || !e.Type().IsRegular() {
			return nil //nolint:nilerr // what cannot be read tells nothing
		}
		info, err := e.Info()
		if err != nil || info.Mode()&0o111 == 0 || info.Size() > maxProgram {
			return nil //nolint:nilerr // as above
		}
		return v.program(root, file)
	})
}

func (v *inventory) program(root *os.Root, file string) error {
	f, err := root.Open(file)
	if err != nil {
		return nil //nolint:nilerr // as above
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil || string(magic[:]) != "\x7fELF" {
		return nil //nolint:nilerr // no program of this kind
	}
	info, err := buildinfo.Read(f)
	if err != nil {
		return nil //nolint:nilerr // no program of Go's
	}
	for _, m := range modulesOf(info) {
		m.where = []string{"/" + file}
		if err := v.add(m); err != nil {
			return err
		}
	}
	return nil
}

// modulesOf are the modules of a program, and the standard library.
func modulesOf(info *buildinfo.BuildInfo) []part {
	version, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ") // of experiments
	modules := []part{goModule("stdlib", version)}
	if info.Main.Path != "" {
		modules = append(modules, goModule(info.Main.Path, info.Main.Version))
	}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, goModule(m.Path, m.Version))
	}
	return modules
}

// goModule is a module; what was built in a checkout has no version.
func goModule(name, version string) part {
	if version == "(devel)" {
		version = ""
	}
	var escaped []string
	for one := range strings.SplitSeq(strings.ToLower(name), "/") {
		escaped = append(escaped, percent(one))
	}
	return part{name: name, version: version, purl: purl("golang", strings.Join(escaped, "/"), version)}
}
