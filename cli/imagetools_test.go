package cli

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// shelf is a registry that has what is put into it, in one repository, to be read.
type shelf map[string][]byte

// put stores content under its digest, and gives the descriptor.
func (s shelf) put(t *testing.T, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := digest.FromBytes(raw)
	s[d.String()] = raw
	return ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(raw))}
}

// ServeHTTP answers for manifests and blobs alike.
func (s shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, ok := s[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write(raw)
}

// stock puts an index under the tag 1: an image with a list of its packages.
func (s shelf) stock(t *testing.T) (index, img ocispec.Descriptor) {
	t.Helper()
	const manifest = ocispec.MediaTypeImageManifest
	config := s.put(t, ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}})
	img = s.put(t, manifest, ocispec.Manifest{MediaType: manifest, Config: config, Layers: []ocispec.Descriptor{}})
	img.Platform = &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}
	list := s.put(t, "application/vnd.in-toto+json", map[string]any{"predicate": map[string]string{"spdxVersion": "SPDX-2.3"}})
	list.Annotations = map[string]string{"in-toto.io/predicate-type": "https://spdx.dev/Document"}
	about := s.put(t, manifest, ocispec.Manifest{MediaType: manifest, Config: config, Layers: []ocispec.Descriptor{list}})
	about.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	about.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": img.Digest.String()}
	index = s.put(t, ocispec.MediaTypeImageIndex, ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{img, about}})
	s["1"], s["alone"] = s[index.Digest.String()], s[img.Digest.String()]
	return index, img
}

// What a registry has is shown without being fetched; what is to be made of it, too.
func TestImagetools(t *testing.T) {
	s := shelf{}
	index, img := s.stock(t)
	server := httptest.NewServer(s)
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	for words, want := range map[string][]string{
		"buildx imagetools inspect HOST/app:1": {
			"Name:      " + host + "/app:1\n", "Digest:    " + index.Digest.String(), "Name:        " + host + "/app@" + img.Digest.String(),
			"Platform:    linux/arm64/v8", "vnd.docker.reference.type: attestation-manifest",
		},
		"buildx imagetools inspect HOST/app:alone":                                {"Digest:    " + img.Digest.String()},
		"buildx imagetools inspect --raw HOST/app:1":                              {string(s["1"])},
		"buildx imagetools inspect --format {{.Manifest.Digest}} HOST/app:1":      {index.Digest.String() + "\n"},
		"buildx imagetools inspect --format {{json_.SBOM}} HOST/app:1":            {`{"SPDX":{"spdxVersion":"SPDX-2.3"}}`},
		"buildx imagetools inspect --format {{json_.Provenance}} HOST/app:1":      {`{}`},
		"manifest inspect HOST/app:alone":                                         {`"config": {`},
		"manifest inspect -v HOST/app:alone":                                      {`"Ref": "` + host + `/app:alone"`, `"architecture": "arm64"`},
		"manifest inspect HOST/app:none":                                          {"not found"},
		"manifest create HOST/app:2 HOST/app:1":                                   {"sampan buildx imagetools create -t NAME"},
		"buildx imagetools create HOST/app:1":                                     {"say the new name with -t"},
		"buildx imagetools create --dry-run HOST/app:1":                           {`"attestation-manifest"`},
		"buildx imagetools create --dry-run HOST/app:alone":                       {`"application/vnd.oci.image.index.v1+json"`, img.Digest.String()},
		"buildx imagetools create --dry-run --prefer-index=false HOST/app:alone":  {`"config": {`},
		"buildx imagetools create --dry-run --annotation index:a=b HOST/app:1":    {`"a": "b"`},
		"buildx imagetools create --dry-run --annotation manifest:a=b HOST/app:1": {"only the index is given annotations"},
		"buildx imagetools create --append --dry-run HOST/app:1":                  {"--append is to one name"},
		"buildx imagetools create -f x HOST/app:1":                                {"images are named as arguments"},
	} {
		root, out := New(Program{}), &strings.Builder{}
		args := strings.Fields(strings.ReplaceAll(words, "HOST", host))
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_", " ")
		}
		root.SetArgs(append(args, "--data-dir", t.TempDir()))
		root.SetOut(out)
		root.SetErr(out)
		if err := root.Execute(); err != nil {
			out.WriteString(err.Error())
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s: %s\nwithout %s", words, out, w)
			}
		}
	}
}
