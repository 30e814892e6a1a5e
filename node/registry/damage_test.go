package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// A bit that has turned over on the disk does not travel: the whole blob is not sent, nor
// is a part that was asked for, and afterwards there is no such blob.
func TestDamaged(t *testing.T) {
	for name, test := range map[string]struct {
		at   float64
		span string
		// status is that of the first answer; whole says that it has no right to all its bytes.
		status int
	}{
		"first byte":             {0, "", 200},
		"last byte":              {1, "", 200},
		"before what is wanted":  {0.1, "bytes=60000-", 206},
		"in the end":             {0.9, "bytes=-90000", 206},
		"outside what is wanted": {0.9, "bytes=0-99", 404},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t)
			content := make([]byte, 200_000)
			for i := range content {
				content[i] = byte(rand.Uint32()) // nothing that gzip could make small
			}
			img := build(t, s.images, s.host+"/app:1", string(content), "amd64")
			layer := img.Layers[0]
			file := filepath.Join(s.root, "blobs", "sha256", layer.Digest.Encoded())
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			whole := bytes.Clone(raw)
			raw[int(test.at*float64(len(raw)-1))] ^= 1
			if err := os.WriteFile(file, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			path := fmt.Sprintf("/v2/app/blobs/%s", layer.Digest)
			status, got, err := s.part(t, path, test.span)
			if status != test.status {
				t.Errorf("answer %d, want %d", status, test.status)
			}
			if status != http.StatusNotFound && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%d bytes of %d, %v; want it to end before", len(got), len(whole), err)
			}
			if status, _, _ := s.part(t, path, test.span); status != http.StatusNotFound {
				t.Errorf("asked again: %d", status)
			}
			if _, err := os.Stat(filepath.Join(s.root, "damaged", layer.Digest.Encoded())); err != nil {
				t.Error("it was not put aside: ", err)
			}
		})
	}
}

// Parts of a blob that is whole are sent, whichever.
func TestParts(t *testing.T) {
	s := serve(t)
	img := build(t, s.images, s.host+"/app:1", "some content", "amd64")
	layer := img.Layers[0]
	raw, err := os.ReadFile(filepath.Join(s.root, "blobs", "sha256", layer.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	n := len(raw)
	for span, want := range map[string][]byte{
		"": raw, "bytes=0-": raw, "bytes=5-": raw[5:], "bytes=-7": raw[n-7:], "bytes=3-6": raw[3:7],
	} {
		_, got, err := s.part(t, fmt.Sprintf("/v2/app/blobs/%s", layer.Digest), span)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %d bytes, %v; want %d", span, len(got), err, len(want))
		}
	}
}

// part gets a part of something.
func (s served) part(t *testing.T, path, span string) (int, []byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.host+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if span != "" {
		r.Header.Set("Range", span)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	return answer.StatusCode, got, err
}

// What no container can be made of has tags all the same: lists of lists, lists of nothing,
// artifacts with a config of any kind, and images of which a layer must not be pushed.
// None of them is taken for damaged.
func TestOddManifests(t *testing.T) {
	s := serve(t)
	put := func(ref string, v any, mediaType string) (digest.Digest, int) {
		raw, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+s.host+"/v2/odd/manifests/"+ref, bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", mediaType)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return digest.FromBytes(raw), answer.StatusCode
	}
	blob := func(content string) ocispec.Descriptor {
		u, err := s.images.NewUpload()
		if err != nil {
			t.Fatal(err)
		}
		defer u.Abort()
		d := digest.FromString(content)
		if _, err := io.WriteString(u, content); err != nil {
			t.Fatal(err)
		}
		if err := u.Commit(s.host+"/odd", d); err != nil {
			t.Fatal(err)
		}
		return ocispec.Descriptor{Digest: d, Size: int64(len(content))}
	}
	v := specs.Versioned{SchemaVersion: 2}
	const listType, imageType = ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest
	empty, status := put("empty", ocispec.Index{Versioned: v, MediaType: listType, Manifests: []ocispec.Descriptor{}}, listType)
	if status != http.StatusCreated {
		t.Fatal("an empty index: ", status)
	}
	put("nested", ocispec.Index{Versioned: v, MediaType: listType, Manifests: []ocispec.Descriptor{{MediaType: listType, Digest: empty, Size: 1}}}, listType)
	config := blob("no JSON at all")
	config.MediaType = "application/vnd.example.config"
	put("artifact", ocispec.Manifest{Versioned: v, MediaType: imageType, Config: config, Layers: []ocispec.Descriptor{}}, imageType)
	config = blob(`{"os":"windows","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + digest.FromString("x").String() + `"]}}`)
	config.MediaType = ocispec.MediaTypeImageConfig
	foreign := ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Digest: digest.FromString("x"), Size: 1}
	put("foreign", ocispec.Manifest{Versioned: v, MediaType: imageType, Config: config, Layers: []ocispec.Descriptor{foreign}}, imageType)
	foreign.MediaType = ocispec.MediaTypeImageLayerGzip
	if _, status := put("missing", ocispec.Manifest{Versioned: v, MediaType: imageType, Config: config, Layers: []ocispec.Descriptor{foreign}}, imageType); status == http.StatusCreated {
		t.Error("an image without one of its layers was taken")
	}
	var tags struct{ Tags []string }
	s.get(t, "/v2/odd/tags/list", &tags)
	if want := []string{"artifact", "empty", "foreign", "nested"}; !slices.Equal(tags.Tags, want) {
		t.Errorf("tags %q, want %q", tags.Tags, want)
	}
	if _, err := s.images.List(); err != nil {
		t.Error(err)
	}
	if found, err := s.images.Check(t.Context(), image.CheckOptions{}); err != nil || len(found.Damaged) > 0 {
		t.Errorf("Check = %+v, %v", found.Damaged, err)
	}
	if err := s.images.Untag(s.host+"/odd", ":nested"); err != nil { // and a sweep
		t.Error(err)
	}
	if log := s.log.String(); log != "" {
		t.Error("it was said: ", log)
	}
}
