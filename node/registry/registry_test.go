package registry

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// served is a registry over a store of its own, and where it listens.
type served struct {
	images *image.Store
	host   string
	// root is the store's directory, log what it has said.
	root string
	log  *bytes.Buffer
}

func serve(t *testing.T) served {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("unpacking layers sets owners: needs root")
	}
	s := served{root: t.TempDir(), log: &bytes.Buffer{}}
	var err error
	s.images, err = image.Open(image.Config{Root: s.root, Log: slog.New(slog.NewTextHandler(s.log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(nil)
	s.host = server.Listener.Addr().String()
	g, err := New(Config{Images: s.images, Hosts: []string{s.host, "registry.test:5000"}})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = g
	server.Start()
	t.Cleanup(server.Close)
	t.Cleanup(g.Close)
	return s
}

func open(t *testing.T) *image.Store {
	t.Helper()
	s, err := image.Open(image.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// build makes an image with one file for an architecture.
func build(t *testing.T, s *image.Store, ref, content, arch string) image.Image {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := s.NewBuild()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	layer, err := b.WriteLayer(&buf)
	if err != nil {
		t.Fatal(err)
	}
	img, err := b.Commit(t.Context(), ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}}, []image.Layer{layer}, image.Naming{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func (s served) get(t *testing.T, path string, into any) *http.Response {
	t.Helper()
	answer, err := http.Get("http://" + s.host + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	if into != nil {
		if err := json.Unmarshal(raw, into); err != nil {
			t.Fatalf("%s: %v: %s", path, err, raw)
		}
	}
	return answer
}

// A store pushes an image to another through the registry, and a third pulls it.
// The one in the middle can run it.
func TestPushPull(t *testing.T) {
	s := serve(t)
	from, to := open(t), open(t)
	ref := s.host + "/team/app:1"
	want := build(t, from, ref, strings.Repeat("content", 1000), "amd64")
	if _, err := from.Push(t.Context(), ref, image.TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := to.Pull(t.Context(), ref, image.TransferOptions{})
	if err != nil || got.ID != want.ID || got.Manifest != want.Manifest {
		t.Fatalf("Pull = %s, %v; want %s", got.ID, err, want.ID)
	}
	root, err := s.images.Prepare("c", ref)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root.Lower[0], "f")); err != nil {
		t.Error("what was pushed cannot be run: ", err)
	}
	// A second repository gets the layer mounted.
	other := s.host + "/other/app:2"
	if err := from.Tag(ref, other); err != nil {
		t.Fatal(err)
	}
	present := 0
	_, err = from.Push(t.Context(), other, image.TransferOptions{Progress: func(p image.Progress) {
		if p.Present {
			present++
		}
	}})
	if err != nil || present != 2 {
		t.Errorf("push to a second repository: %d of 2 blobs were not sent, %v", present, err)
	}
	// Part of a blob.
	req, _ := http.NewRequest(http.MethodGet, fmt.Sprintf("http://%s/v2/team/app/blobs/%s", s.host, want.Layers[0].Digest), nil)
	req.Header.Set("Range", "bytes=10-")
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(answer.Body)
	answer.Body.Close()
	if err != nil || answer.StatusCode != http.StatusPartialContent || int64(len(rest)) != want.Layers[0].Size-10 {
		t.Errorf("a part of a blob: %d, %d bytes, %v", answer.StatusCode, len(rest), err)
	}
	if answer := s.get(t, fmt.Sprintf("/v2/stranger/app/blobs/%s", want.Layers[0].Digest), nil); answer.StatusCode != http.StatusNotFound {
		t.Errorf("a blob of another repository: %d", answer.StatusCode)
	}
}

func TestIndex(t *testing.T) {
	s := serve(t)
	from, to := open(t), open(t)
	ref := s.host + "/multi:1"
	var list []ocispec.Descriptor
	b, err := from.NewBuild()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for _, arch := range []string{"amd64", "arm64"} {
		img := build(t, from, s.host+"/part:"+arch, "for "+arch, arch)
		desc, err := b.Describe(img.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		desc.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
		list = append(list, desc)
	}
	d, err := b.CommitIndex(list, []string{ref})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := from.Push(t.Context(), ref, image.TransferOptions{}); err != nil || got != d {
		t.Fatalf("Push = %s, %v; want the index %s", got, err, d)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := to.Pull(t.Context(), ref, image.TransferOptions{Architecture: arch})
		if err != nil || img.Config.Architecture != arch {
			t.Errorf("pull for %s: %s, %v", arch, img.Config.Architecture, err)
		}
	}
	if _, err := to.Pull(t.Context(), ref, image.TransferOptions{Architecture: "riscv64"}); err == nil || !strings.Contains(err.Error(), "linux/amd64, linux/arm64") {
		t.Errorf("pull for a platform that is not there: %v", err)
	}
	whole := open(t)
	if _, err := whole.Pull(t.Context(), ref, image.TransferOptions{AllPlatforms: true}); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := whole.SaveLayout(&archive, ref); err != nil {
		t.Fatal(err)
	}
	again := open(t)
	loaded, err := again.Load(t.Context(), &archive)
	if err != nil || len(loaded) != 1 || !slices.Contains(loaded[0].Digests, s.host+"/multi@"+d.String()) {
		t.Errorf("the index through an archive: %+v, %v", loaded, err)
	}
}

func TestLists(t *testing.T) {
	s := serve(t)
	build(t, s.images, s.host+"/b/app:2", "x", "amd64")
	build(t, s.images, s.host+"/b/app:1", "y", "amd64")
	build(t, s.images, "registry.test:5000/a:v", "z", "amd64")
	build(t, s.images, "docker.io/library/private:1", "p", "amd64")
	var catalogue struct{ Repositories []string }
	s.get(t, "/v2/_catalog", &catalogue)
	if !slices.Equal(catalogue.Repositories, []string{"a", "b/app"}) {
		t.Errorf("catalogue %q", catalogue.Repositories)
	}
	var tags struct{ Tags []string }
	answer := s.get(t, "/v2/b/app/tags/list?n=1", &tags)
	if !slices.Equal(tags.Tags, []string{"1"}) || !strings.Contains(answer.Header.Get("Link"), "last=1") {
		t.Errorf("first page %q, link %q", tags.Tags, answer.Header.Get("Link"))
	}
	s.get(t, "/v2/b/app/tags/list?n=1&last=1", &tags)
	if !slices.Equal(tags.Tags, []string{"2"}) {
		t.Errorf("second page %q", tags.Tags)
	}
	for path, want := range map[string]int{
		"/v2/": 200, "/v2/private/manifests/1": 404, "/v2/UPPER/manifests/1": 404, "/v2/b/app/manifests/9": 404,
		"/v2/../b/app/manifests/1": 404, "/v2/b/app/blobs/sha256:12": 400, "/": 404,
	} {
		if got := s.get(t, path, nil).StatusCode; got != want {
			t.Errorf("GET %s: %d, want %d", path, got, want)
		}
	}
	req, _ := http.NewRequest(http.MethodDelete, "http://"+s.host+"/v2/b/app/manifests/2", nil)
	if answer, err := http.DefaultClient.Do(req); err != nil || answer.StatusCode != http.StatusAccepted {
		t.Errorf("delete a tag: %v, %v", answer, err)
	}
	if got := s.get(t, "/v2/b/app/manifests/2", nil).StatusCode; got != 404 {
		t.Errorf("a deleted tag: %d", got)
	}
}

// Nobody but this machine may do anything unless Allow says so, and what is wrong
// is refused.
func TestRefused(t *testing.T) {
	s := serve(t)
	g, err := New(Config{Images: s.images, Hosts: []string{"h:1"}})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	r.RemoteAddr = "192.0.2.7:1234"
	w := httptest.NewRecorder()
	g.ServeHTTP(w, r)
	if w.Code != http.StatusUnauthorized {
		t.Errorf("a stranger gets %d", w.Code)
	}
	for host, want := range map[string]int{"localhost:1": 200, "127.0.0.1": 200, "[::1]:1": 200, "evil.example:1": 401} {
		r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
		r.RemoteAddr, r.Host = "127.0.0.1:1234", host
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("from here, called %s: %d, want %d", host, w.Code, want)
		}
	}
	for what, body := range map[string]string{
		"no manifest":    `{"a":1}`,
		"no JSON":        `{`,
		"missing config": `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:` + strings.Repeat("0", 64) + `"},"layers":[]}`,
		"evil digest":    `{"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":"sha256:../../etc/passwd"},"layers":[]}`,
	} {
		req, _ := http.NewRequest(http.MethodPut, "http://"+s.host+"/v2/a/manifests/1", strings.NewReader(body))
		answer, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest && answer.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %d", what, answer.StatusCode)
		}
	}
}

// Debian's skopeo reads what we serve, and we what it pushes.
func TestSkopeo(t *testing.T) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		t.Skip("skopeo is not installed")
	}
	s := serve(t)
	img := build(t, s.images, s.host+"/ours:1", "ours", "amd64")
	dir := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "skopeo", append([]string{"--insecure-policy"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	run("copy", "--src-tls-verify=false", "docker://"+s.host+"/ours:1", "oci:"+dir+"/oci:1")
	if out := run("inspect", "oci:"+dir+"/oci:1"); !strings.Contains(out, img.Layers[0].Digest.String()) {
		t.Errorf("skopeo sees another image:\n%s", out)
	}
	run("copy", "--dest-tls-verify=false", "oci:"+dir+"/oci:1", "docker://"+s.host+"/theirs:2")
	got, err := s.images.Get(s.host + "/theirs:2")
	if err != nil || got.ID != img.ID {
		t.Errorf("what skopeo pushed: %s, %v; want %s", got.ID, err, img.ID)
	}
	for _, kind := range []string{"docker-archive", "oci-archive"} {
		var archive bytes.Buffer
		save := s.images.Save
		if kind == "oci-archive" {
			save = s.images.SaveLayout
		}
		if err := save(&archive, s.host+"/ours:1"); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, kind)
		if err := os.WriteFile(file, archive.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := run("inspect", "--config", kind+":"+file); !strings.Contains(out, "amd64") {
			t.Errorf("%s as skopeo sees it:\n%s", kind, out)
		}
		theirs := filepath.Join(dir, "theirs-"+kind)
		run("copy", kind+":"+file, kind+":"+theirs+":theirs/"+kind+":3")
		f, err := os.Open(theirs)
		if err != nil {
			t.Fatal(err)
		}
		loaded, err := open(t).Load(t.Context(), f)
		f.Close()
		if err != nil || len(loaded) != 1 || loaded[0].Config.RootFS.DiffIDs[0] != img.Config.RootFS.DiffIDs[0] {
			t.Errorf("%s of skopeo: %+v, %v", kind, loaded, err)
		}
	}
}
