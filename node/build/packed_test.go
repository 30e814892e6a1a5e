package build

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// Layers are compressed as it is wanted: those of the base when that is said, too. The
// files are the same, and what has been compressed once is not compressed again.
func TestCompression(t *testing.T) {
	needRoot(t)
	store := open(t)
	base, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nCOPY a /\n-- a --\n"+strings.Repeat("a", 5000), func(o *Options) { o.Tags = []string{"base:1"} })
	if err != nil {
		t.Fatal(err)
	}
	const archive = "-- Dockerfile --\nFROM base:1 AS first\nFROM first\nCOPY b /\n-- b --\nb\n"
	nine := 9
	gzip, zstd, plain := ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd, ocispec.MediaTypeImageLayer
	seen := map[string]string{}
	for _, test := range []struct {
		name          string
		how           image.Compression
		force, docker bool
		want          []string
	}{
		{"as always", image.Compression{}, false, false, []string{gzip, gzip}},
		{"zstd", image.Compression{Kind: image.Zstd}, false, false, []string{gzip, zstd}},
		{"zstd again", image.Compression{Kind: image.Zstd}, false, false, []string{gzip, zstd}},
		{"all zstd", image.Compression{Kind: image.Zstd, Level: &nine}, true, false, []string{zstd, zstd}},
		{"none", image.Compression{Kind: image.Uncompressed}, true, false, []string{plain, plain}},
		{"gzip 9", image.Compression{Kind: image.Gzip, Level: &nine}, true, false, []string{gzip, gzip}},
		{"docker's words", image.Compression{}, false, true, []string{
			"application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.docker.image.rootfs.diff.tar.gzip",
		}},
		{"docker has no word", image.Compression{Kind: image.Zstd}, false, true, []string{gzip, zstd}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var warned []Warning
			img, _, err := build(t, store, archive, func(o *Options) {
				o.Compression, o.Recompress, o.DockerTypes = test.how, test.force, test.docker
				o.Warn = func(w Warning) { warned = append(warned, w) }
			})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, l := range img.Layers {
				got = append(got, l.MediaType)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("layers %q, want %q", got, test.want)
			}
			if same := img.Layers[0].Digest == base.Layers[0].Digest; same == test.force {
				t.Errorf("the base's layer is the same: %v", same)
			}
			if told := len(warned) > 0; told != (test.docker && test.how.Kind == image.Zstd) {
				t.Errorf("warnings %+v", warned)
			}
			kind, _, _ := strings.Cut(test.name, " again")
			if before, ok := seen[kind]; ok && before != img.Manifest.String() {
				t.Error("it is another image the second time")
			}
			seen[kind] = img.Manifest.String()
			elsewhere := open(t)
			var packed bytes.Buffer
			if err := store.Save(&packed, "test:1"); err != nil {
				t.Fatal(err)
			}
			if _, err := elsewhere.Load(t.Context(), &packed); err != nil {
				t.Fatal(err)
			}
			if all := files(t, elsewhere, img); len(all) != 2 || !strings.Contains(all[1], "/b") {
				t.Errorf("files %q", all)
			}
		})
	}
}
