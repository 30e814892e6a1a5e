package image

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// only is a source that has one blob.
type only []byte

func (b only) open(_ context.Context, desc ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	if desc.Digest != digest.FromBytes(b) || offset > int64(len(b)) {
		return nil, fmt.Errorf("%q: %w", desc.Digest, ErrNotFound)
	}
	return io.NopCloser(bytes.NewReader(b[offset:])), nil
}

// empty is a store for inputs; it is the same for all of them, and must stay empty.
func empty(f *testing.F) *Store {
	if os.Getuid() != 0 {
		f.Skip("unpacking layers sets owners: needs root")
	}
	s, err := Open(Config{Root: f.TempDir()})
	if err != nil {
		f.Fatal(err)
	}
	return s
}

// clear removes what an input has brought, and fails when it can be told but not
// removed.
func (s *Store) clear(t *testing.T) {
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.reachable(); err != nil {
		t.Fatal(err)
	}
	for _, img := range all {
		if err := s.Remove(img.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever a registry says that an image is, taking it costs in proportion, and what
// was taken can be listed and removed. DIGEST and SIZE are those of the configuration.
func FuzzManifest(f *testing.F) {
	s := empty(f)
	const oci, config = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"DIGEST","size":SIZE},"layers":[]}`, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`
	f.Add(oci, config)
	f.Add(strings.Replace(oci, `"layers":[]`, `"layers":[{"digest":"sha256:../../x","size":-1}]`, 1), config)
	f.Add(strings.Replace(oci, "SIZE", "9223372036854775807", 1), config)
	f.Add(oci, `{"rootfs":{"diff_ids":["x","sha256:`+strings.Repeat("0", 64)+`"]},"config":{"Volumes":{"":{}},"Env":["="]},"history":[{},{}]}`)
	f.Add(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"DIGEST","size":SIZE,"platform":{"os":"linux","architecture":"amd64"}}]}`, oci)
	f.Add(strings.Replace(oci, `"layers":[]`, `"layers":[{"mediaType":"x","digest":"x","size":1}]`, 1), config)
	f.Add(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"digest":"DIGEST","size":SIZE,"platform":{"os":"linux","architecture":"amd64"}},{"digest":"x","size":1}]}`, oci)
	f.Add(`{"manifests":[{"platform":null}],"layers":[]}`, `[]`)
	f.Add(`{"schemaVersion":1,"fsLayers":[{}],"history":[{"v1Compatibility":"{}"}]}`, ``)
	f.Fuzz(func(t *testing.T, manifest, config string) {
		raw := []byte(strings.NewReplacer("DIGEST", digest.FromString(config).String(), "SIZE", fmt.Sprint(len(config))).Replace(manifest))
		for _, all := range []bool{false, true} {
			frugal.Run(t, len(raw)+len(config), func() {
				top := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(len(raw))}
				_, _ = s.ingest(t.Context(), only(config), arrival{ref: "fuzz.test/a:1", top: top, raw: raw, all: all})
			})
		}
		s.clear(t)
	})
}

// Whatever an archive has in it, loading it costs in proportion, and what was loaded
// can be listed and removed.
func FuzzLoad(f *testing.F) {
	s := empty(f)
	pack := func(files ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: files[i], Size: int64(len(files[i+1])), Mode: 0o600}
			if link, ok := strings.CutPrefix(files[i+1], "-> "); ok {
				h = &tar.Header{Typeflag: tar.TypeSymlink, Name: files[i], Linkname: link}
			}
			if err := w.WriteHeader(h); err != nil {
				f.Fatal(err)
			}
			if h.Size > 0 {
				if _, err := io.WriteString(w, files[i+1]); err != nil {
					f.Fatal(err)
				}
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add([]byte("no tar"))
	f.Add(pack("manifest.json", `[{"Config":"c.json","RepoTags":["a:1"],"Layers":[]}]`, "c.json", `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Add(pack("manifest.json", `[{"Config":"../../etc/passwd","RepoTags":["","@"],"Layers":["x","/dev/zero"]}]`, "x", "-> /dev/zero"))
	f.Add(pack("oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", `{"manifests":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":3,"annotations":{"org.opencontainers.image.ref.name":"../x"}}]}`))
	f.Add(pack("oci-layout", `-> index.json`, "index.json", `-> oci-layout`, "blobs", `-> /`))
	f.Add(pack("repositories", `{"a":{"1":"b"}}`, "manifest.json", `null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		frugal.Run(t, len(raw), func() { _, _ = s.Load(t.Context(), bytes.NewReader(raw)) })
		s.clear(t)
	})
}
