package build

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

const debian = `Package: libc6
Status: install ok installed
Maintainer: GNU Libc Maintainers <debian-glibc@lists.debian.org>
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u13
Description: GNU C Library
 Version: 9, which is text
 .

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: half
Status: install ok half-installed
Version: 1

Package: tzdata
Status: install ok installed
Architecture: all
Version: 1:2025b-0
`

const alpine = `C:Q1abc=
P:musl-utils
V:1.2.5-r1
A:x86_64
L:MIT AND BSD-2-Clause
o:musl
m:Timo Teräs <timo.teras@iki.fi>

P:musl
V:1.2.5-r1
A:x86_64
o:musl

P:
V:2
`

// What is in an image, by its databases and its programs. What is no file is not opened.
func TestInventory(t *testing.T) {
	for name, test := range map[string]struct {
		files map[string]string
		want  []string
		rpm   bool
	}{
		"nothing": {},
		"debian": {
			files: map[string]string{
				"usr/lib/os-release": "PRETTY_NAME=\"Debian\"\nVERSION_ID=\"12\"\nID=debian\n", "var/lib/dpkg/status": debian,
			},
			want: []string{
				"pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12&upstream=glibc",
				"pkg:deb/debian/tzdata@1:2025b-0?arch=all&distro=debian-12",
			},
		},
		"without dpkg": {
			files: map[string]string{
				"etc/os-release": "ID=debian", "var/lib/dpkg/status.d/base": "Package: base-files\nVersion: 12\nArchitecture: amd64\n",
				"var/lib/dpkg/status.d/base.md5sums": "Package: none\nVersion: 1\n",
			},
			want: []string{"pkg:deb/debian/base-files@12?arch=amd64&distro=debian"},
		},
		"alpine": {
			files: map[string]string{"etc/os-release": "ID=alpine\nVERSION_ID=3.22.1", "lib/apk/db/installed": alpine},
			want: []string{
				"pkg:apk/alpine/musl-utils@1.2.5-r1?arch=x86_64&distro=alpine-3.22.1&upstream=musl",
				"pkg:apk/alpine/musl@1.2.5-r1?arch=x86_64&distro=alpine-3.22.1",
			},
		},
		"rpm":    {files: map[string]string{"usr/lib/sysimage/rpm/rpmdb.sqlite": "x"}, rpm: true},
		"a pipe": {files: map[string]string{"var/lib/dpkg/status": "|", "bin/pipe": "|"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range test.files {
				file = filepath.Join(dir, file)
				err := os.MkdirAll(filepath.Dir(file), 0o755)
				if err == nil && content == "|" {
					err = unix.Mkfifo(file, 0o755)
				} else if err == nil {
					err = os.WriteFile(file, []byte(content), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			got := inventoryOf(t, dir)
			var names []string
			for _, p := range got.packages() {
				names = append(names, p.purl)
			}
			if !slices.Equal(names, test.want) || got.rpm != test.rpm {
				t.Errorf("%q, rpm %v; want\n%q, %v", names, got.rpm, test.want, test.rpm)
			}
		})
	}
}

func inventoryOf(t *testing.T, dir string) inventory {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	got, err := takeInventory(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// A program tells which modules it was made of: this one.
func TestInventoryOfPrograms(t *testing.T) {
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for to, mode := range map[string]os.FileMode{"one": 0o755, "two": 0o755, "data": 0o644} {
		in, err := os.Open(self)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(filepath.Join(dir, to), os.O_CREATE|os.O_WRONLY, mode)
		if err == nil {
			_, err = io.Copy(out, in)
		}
		if err == nil {
			err = out.Close()
		}
		if in.Close(); err != nil {
			t.Fatal(err)
		}
	}
	where := map[string][]string{}
	for _, p := range inventoryOf(t, dir).packages() {
		kind, _, _ := strings.Cut(p.purl, "@")
		where[kind] = p.where
	}
	if got := where["pkg:golang/stdlib"]; !slices.Equal(got, []string{"/one", "/two"}) {
		t.Errorf("the standard library is in %q of %v", got, where)
	}
	// Tests are not told which modules they are made of; programs are.
	info := &debug.BuildInfo{
		GoVersion: "go1.26.1 X:nodwarf5", Main: debug.Module{Path: "example.test/Main", Version: "(devel)"},
		Deps: []*debug.Module{
			{Path: "example.test/a", Version: "v1.2.3-0.20260101000000-abcdef+incompatible"},
			{Path: "example.test/b", Version: "v1.0.0", Replace: &debug.Module{Path: "example.test/fork", Version: "v1.0.1"}},
		},
	}
	var got []string
	for _, p := range modulesOf(info) {
		got = append(got, p.purl)
	}
	if want := []string{
		"pkg:golang/stdlib@1.26.1", "pkg:golang/example.test/main",
		"pkg:golang/example.test/a@v1.2.3-0.20260101000000-abcdef%2Bincompatible", "pkg:golang/example.test/fork@v1.0.1",
	}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Both statements lie beside the image as BuildKit has them, and each says what it is about.
func TestStatements(t *testing.T) {
	needRoot(t)
	store := open(t)
	img, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nCOPY status /var/lib/dpkg/\nCOPY Dockerfile /\n-- status --\n"+debian, func(o *Options) {
		o.SBOM, o.Provenance = true, true
		o.DockerTypes = true // for which there are no words
	})
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := store.Manifest("docker.io/library/test", "1")
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	read(t, string(raw), &index)
	if len(index.Manifests) != 2 || index.MediaType != ocispec.MediaTypeImageIndex || index.Manifests[0].Digest != img.Manifest {
		t.Fatalf("the index: %s", raw)
	}
	about := index.Manifests[1]
	if about.Annotations[refType] != "attestation-manifest" || about.Annotations[refDigest] != img.Manifest.String() || about.Platform.OS != "unknown" {
		t.Errorf("the statements: %+v", about)
	}
	var m ocispec.Manifest
	read(t, stored(t, store, about), &m)
	var kinds []string
	for _, l := range m.Layers {
		var s struct {
			PredicateType string
			Subject       []struct{ Digest map[string]string }
			Predicate     spdx
		}
		read(t, stored(t, store, l), &s)
		if l.Annotations["in-toto.io/predicate-type"] != s.PredicateType || s.Subject[0].Digest["sha256"] != img.Manifest.Encoded() {
			t.Errorf("%+v says of itself %+v", l, s)
		}
		kinds = append(kinds, s.PredicateType)
		if s.PredicateType != sbomType {
			continue
		}
		var names []string
		for _, p := range s.Predicate.Packages {
			names = append(names, p.Name)
		}
		if !slices.Equal(names, []string{"pkg:docker/test@1", "libc6", "tzdata"}) || len(s.Predicate.Relationships) != 3 {
			t.Errorf("packages %q, %d relationships", names, len(s.Predicate.Relationships))
		}
	}
	if !slices.Equal(kinds, []string{sbomType, predicateType}) {
		t.Errorf("statements %q", kinds)
	}
}

func read(t *testing.T, raw string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(raw), into); err != nil {
		t.Fatal(err)
	}
}

// stored is a blob of the image test.
func stored(t *testing.T, store *image.Store, desc ocispec.Descriptor) string {
	t.Helper()
	f, err := store.BlobOf("docker.io/library/test", desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(f)
	if err != nil || int64(len(raw)) != desc.Size {
		t.Fatalf("%s: %d bytes, %v; want %d", desc.Digest, len(raw), err, desc.Size)
	}
	return string(raw)
}
