package critest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// registry is one that engines can pull from: on this machine, without TLS, with
// images that no other part of the exam knows.
type registry struct {
	*exam
	address string
	// content is what lies under each path below /v2.
	content map[string][]byte
	// ask decides who may come in; nil lets everybody.
	ask func(w http.ResponseWriter, r *http.Request) bool
	// lie answers in the place of what is true when it returns true.
	lie func(w http.ResponseWriter, r *http.Request) bool
}

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func (x *exam) registry() *registry {
	r := &registry{exam: x, content: map[string][]byte{}}
	server := httptest.NewServer(r)
	x.Cleanup(server.Close)
	r.address = strings.TrimPrefix(server.URL, "http://")
	return r
}

// ServeHTTP answers as the distribution specification wants it.
func (r *registry) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if q.URL.Path != "/token" && r.ask != nil && !r.ask(w, q) {
		return
	}
	if r.lie != nil && r.lie(w, q) {
		return
	}
	path := strings.TrimPrefix(q.URL.Path, "/v2/")
	raw, ok := r.content[path]
	switch {
	case path == "":
		return
	case !ok:
		http.NotFound(w, q)
		return
	}
	if strings.Contains(path, "/manifests/") {
		w.Header().Set("Content-Type", manifestType)
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	w.Header().Set("Docker-Content-Digest", digestOf(raw))
	w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
	if q.Method != http.MethodHead {
		_, _ = w.Write(raw) // whoever asked may be gone
	}
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// add makes an image of its own, with a configuration's fields, under each of the
// names, and tells the manifest's digest.
func (r *registry) add(config map[string]any, names ...string) (digest string) {
	r.Helper()
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	// No two images of the exam are the same: what removes one must not remove another.
	text := fmt.Sprintf("%s %d", r.Name(), serial.Add(1))
	for _, f := range []struct{ name, text string }{{"own", text}, {"etc/passwd", "root:x:0:0::/root:\nweb:x:33:34::/:\n"}, {"etc/group", "www:x:34:\nlogs:x:44:web\n"}} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(len(f.text))}); err != nil {
			r.Fatal(err)
		}
		must(io.WriteString(w, f.text))(r.exam)
	}
	z := gzip.NewWriter(&packed)
	if err := w.Close(); err != nil {
		r.Fatal(err)
	}
	must(z.Write(plain.Bytes()))(r.exam)
	if err := z.Close(); err != nil {
		r.Fatal(err)
	}
	own := map[string]any{"Cmd": []string{"/own"}}
	maps.Copy(own, config)
	conf := must(json.Marshal(map[string]any{"architecture": runtime.GOARCH, "os": "linux", "config": own,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digestOf(plain.Bytes())}}}))(r.exam)
	part := func(kind string, b []byte) map[string]any {
		return map[string]any{"mediaType": kind, "digest": digestOf(b), "size": len(b)}
	}
	manifest := must(json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": manifestType,
		"config": part(configType, conf), "layers": []any{part(layerType, packed.Bytes())}}))(r.exam)
	for _, name := range names {
		repository, tag, _ := strings.Cut(name, ":")
		for _, ref := range []string{tag, digestOf(manifest)} {
			r.content[repository+"/manifests/"+ref] = manifest
		}
		for _, b := range [][]byte{conf, packed.Bytes()} {
			r.content[repository+"/blobs/"+digestOf(b)] = b
		}
	}
	return digestOf(manifest)
}

// pull is a pull that is cleaned up after.
func (r *registry) pull(ref string, auth *rt.AuthConfig) (string, error) {
	r.Helper()
	r.Cleanup(func() {
		if _, err := r.e.RemoveImage(r.ctx(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: ref}}); err != nil {
			r.Errorf("clean up %s: %v", ref, err)
		}
	})
	out, err := r.e.PullImage(r.ctx(), &rt.PullImageRequest{Image: &rt.ImageSpec{Image: ref}, Auth: auth})
	return out.GetImageRef(), err
}

// image is what the engine says of an image by any of its names; nil, nothing.
func (x *exam) image(ref string) *rt.Image {
	x.Helper()
	return must(x.e.ImageStatus(x.ctx(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: ref}}))(x).Image
}
