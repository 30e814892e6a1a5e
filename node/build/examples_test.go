package build

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

func TestDownload(t *testing.T) {
	needRoot(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/dir/file.txt" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
		_, _ = w.Write([]byte("content"))
	}))
	defer server.Close()
	const sum = "sha256:ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
	store := open(t)
	img, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nADD --checksum="+sum+" "+server.URL+"/dir/file.txt /in/\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, store, img); !slices.Contains(got, "/in/file.txt -rw------- content") {
		t.Errorf("files %q", got)
	}
	for path, want := range map[string]string{
		"--checksum=sha256:" + strings.Repeat("0", 64) + " URL/dir/file.txt /": "has checksum " + sum,
		"URL/missing /":  "404",
		"URL/repo.git /": "git repository",
	} {
		_, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nADD "+strings.ReplaceAll(path, "URL", server.URL)+"\n", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ADD %s: %v, want %q in it", path, err, want)
		}
	}
}

// With an epoch, two builds of equal input on two machines are equal to the byte;
// the platforms of one build make an index, with a statement for each.
func TestReproducible(t *testing.T) {
	needRoot(t)
	const archive = "-- Dockerfile --\nFROM scratch\nCOPY a /\nWORKDIR /w\nLABEL a=b\n-- a --\na\n"
	at := time.Unix(1000000000, 0)
	first, _, err := build(t, open(t), archive, func(o *Options) { o.Epoch = &at })
	if err != nil {
		t.Fatal(err)
	}
	second, _, err := build(t, open(t), archive, func(o *Options) { o.Args = map[string]string{"SOURCE_DATE_EPOCH": "1000000000"} })
	if err != nil || first.Manifest != second.Manifest {
		t.Errorf("%s, then %s, %v", first.Manifest, second.Manifest, err)
	}
	asks := strings.Replace(archive, "FROM", "ARG SOURCE_DATE_EPOCH=1000000000\nFROM", 1)
	if third, _, err := build(t, open(t), asks, nil); err != nil || first.Manifest != third.Manifest {
		t.Errorf("%s, and by the Dockerfile itself %s, %v", first.Manifest, third.Manifest, err)
	}
	if never, _, err := build(t, open(t), asks, func(o *Options) { o.Args = map[string]string{"SOURCE_DATE_EPOCH": ""} }); err != nil || first.Manifest == never.Manifest {
		t.Errorf("an empty argument leaves the Dockerfile's: %v", err)
	}
	store := open(t)
	img, _, err := build(t, store, archive, func(o *Options) {
		o.Platforms, o.Provenance = []string{"linux/amd64", "linux/arm64/v8"}, true
	})
	if err != nil || img.Index == "" {
		t.Fatalf("index %q, %v", img.Index, err)
	}
	_, raw, err := store.Manifest("docker.io/library/test", "1")
	if err != nil || strings.Count(string(raw), "attestation-manifest") != 2 || !strings.Contains(string(raw), "arm64") {
		t.Errorf("the index: %v\n%s", err, raw)
	}
	var alone bytes.Buffer
	if err := store.SavePlatform(&alone, "arm64", false, "test:1"); err != nil {
		t.Fatal(err)
	}
	other := open(t)
	if got, err := other.Load(t.Context(), &alone); err != nil || len(got) != 1 || got[0].Config.Architecture != "arm64" || len(got[0].Tags) != 1 {
		t.Errorf("one platform of it: %+v, %v", got, err)
	}
	if err := other.SavePlatform(io.Discard, "s390x", true, "test:1"); !errors.Is(err, image.ErrPlatform) {
		t.Errorf("a platform that it is not for: %v", err)
	}
}

// Warnings tell of what is doubtful, an excerpt where a mistake is.
func TestTold(t *testing.T) {
	needRoot(t)
	var warned []Warning
	_, _, err := build(t, open(t), "-- Dockerfile --\nFROM scratch as x\nCOPY a /\n-- a --\na\n", func(o *Options) {
		o.Warn = func(w Warning) { warned = append(warned, w) }
		o.Args = map[string]string{"NOBODY": "1"}
	})
	if err != nil || len(warned) != 2 || warned[0].Rule != "FromAsCasing" || !strings.Contains(warned[1].Text, "NOBODY") {
		t.Errorf("warnings %+v, %v", warned, err)
	}
	if _, _, err = build(t, open(t), "-- Dockerfile --\n# check=error=true\nFROM scratch as x\n", nil); err == nil {
		t.Error("check=error=true has no effect")
	}
	f := &Failure{Path: "D", Line: 2, End: 2, Err: image.ErrInvalid, raw: []byte("FROM a\nRUN b\nRUN c\n")}
	if got, want := f.Excerpt(), "   1 |     FROM a\n   2 | >>> RUN b\n   3 |     RUN c\n"; got != want {
		t.Errorf("excerpt:\n%s", got)
	}
}

// Each platform of one build has its own values of the platform's variables, wherever
// they are used.
func TestPlatformsHaveTheirOwn(t *testing.T) {
	needRoot(t)
	store := open(t)
	_, _, err := build(t, store, "-- Dockerfile --\nFROM scratch\nARG TARGETARCH\nLABEL of=$TARGETARCH\nENV A=$TARGETARCH\nCOPY $TARGETARCH.txt /in\n-- amd64.txt --\na\n-- arm64.txt --\nb\n", func(o *Options) {
		o.Platforms = []string{"linux/amd64", "linux/arm64"}
	})
	if err != nil {
		t.Fatal(err)
	}
	_, raw, err := store.Manifest("docker.io/library/test", "1")
	if err != nil {
		t.Fatal(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) != 2 {
		t.Fatalf("index %s, %v", raw, err)
	}
	blob := func(d digest.Digest, into any) {
		t.Helper()
		f, err := store.BlobOf("docker.io/library/test", d)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := json.NewDecoder(f).Decode(into); err != nil {
			t.Fatal(err)
		}
	}
	layers := map[digest.Digest]bool{}
	for _, m := range index.Manifests {
		var manifest ocispec.Manifest
		blob(m.Digest, &manifest)
		var config ocispec.Image
		blob(manifest.Config.Digest, &config)
		layers[config.RootFS.DiffIDs[0]] = true
		arch := m.Platform.Architecture
		if config.Config.Labels["of"] != arch || !slices.Contains(config.Config.Env, "A="+arch) {
			t.Errorf("%s: labels %v, environment %v", arch, config.Config.Labels, config.Config.Env)
		}
	}
	if len(layers) != 2 {
		t.Error("both platforms have the same file")
	}
}

// The files of several platforms lie beside each other, each below its own name; and one
// platform is an index when that is asked for.
func TestPlatformsBesideEachOther(t *testing.T) {
	needRoot(t)
	store := open(t)
	var parts []Part
	const archive = "-- Dockerfile --\nFROM scratch\nARG TARGETPLATFORM\nCOPY <<x /is\n$TARGETPLATFORM\nx\n"
	_, _, err := build(t, store, archive, func(o *Options) {
		o.Platforms = []string{"linux/amd64", "linux/arm/v7"}
		o.OnImage = func(name string, img image.Image) { parts = append(parts, Part{Image: img, Dir: PlatformDir(name)}) }
	})
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := WriteTars(t.Context(), store, parts, nil, &packed); err != nil {
		t.Fatal(err)
	}
	var got []string
	for tr := tar.NewReader(&packed); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		raw, err2 := io.ReadAll(tr)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name+" "+strings.TrimSpace(string(raw)))
	}
	if want := []string{"linux_amd64/ ", "linux_amd64/is linux/amd64", "linux_arm_v7/ ", "linux_arm_v7/is linux/arm/v7"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	img, _, err := build(t, store, archive, func(o *Options) { o.Args = map[string]string{argIndex: "1"} })
	if err != nil || img.Index == "" {
		t.Errorf("one platform: index %q, %v", img.Index, err)
	}
	img, _, err = build(t, store, archive, func(o *Options) { o.Platforms, o.Tags = []string{"linux/amd64", "linux/s390x"}, nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SaveLayout(io.Discard, img.Index.String()); err != nil {
		t.Errorf("an index without a name: %v", err)
	}
}
