package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// archiveOf is a tar of files, each with its own name as content.
func archiveOf(t *testing.T, names ...string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(name)), Mode: 0o644})
		if err == nil {
			_, err = w.Write([]byte(name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// An archive becomes an image of one layer, and a container of that another with what it
// has changed and what was said of it.
func TestGiven(t *testing.T) {
	needRoot(t)
	store := open(t)
	base, err := FromArchive(t.Context(), store, archiveOf(t, "a", "b"), Given{Ref: "base:1", Message: "brought", Platform: "linux/arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if c := base.Config; len(base.Layers) != 1 || c.Architecture != "arm64" || len(c.History) != 1 || c.History[0].Comment != "brought" {
		t.Errorf("the image of an archive is %+v", c)
	}
	root, err := store.Prepare("c1", "base:1")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"a": "changed", "c": "new"} {
		if err := os.WriteFile(filepath.Join(root.Upper, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	made, err := FromSnapshot(t.Context(), store, "c1", base, Given{
		Ref: "made:1", Author: "me", Command: "sh", Changes: []string{`CMD ["x"]`, "ENV A=1"}, Config: ocispec.ImageConfig{Env: []string{"B=2"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := made.Config
	if len(made.Layers) != 2 || made.Layers[0].Digest != base.Layers[0].Digest || c.Author != "me" || c.Architecture != "arm64" ||
		!slices.Equal(c.Config.Cmd, []string{"x"}) || !slices.Equal(c.Config.Env, []string{"B=2", "A=1"}) {
		t.Errorf("the image of a container is %+v", c)
	}
	if got := files(t, store, made); !slices.Equal(got, []string{"/a -rw------- changed", "/b -rw-r--r-- b", "/c -rw------- new"}) {
		t.Errorf("its files are %q", got)
	}
	if all, err := store.List(); err != nil || len(all) != 2 {
		t.Errorf("images: %d, %v; the step on the way is to be gone", len(all), err)
	}
	if _, err := FromSnapshot(t.Context(), store, "none", base, Given{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no container: %v", err)
	}
	if _, err := FromArchive(t.Context(), store, strings.NewReader("no archive at all"), Given{}); !errors.Is(err, image.ErrInvalid) {
		t.Errorf("of no archive: %v", err)
	}
}
