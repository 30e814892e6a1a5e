package exchange

import (
	"archive/tar"
	"bytes"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/registry"
)

// town is a cluster of nodes that have nothing but images.
type town struct {
	authority *pki.Authority
	api       *clienttest.Memory
	origin    string
}

// house is a node of it.
type house struct {
	images *image.Store
	// root is the store's directory.
	root string
	// lie answers for the content in the node's stead.
	lie http.HandlerFunc
	// sent counts what it was asked for.
	sent atomic.Int32
}

// found makes a town with the server's node, "first", and another.
func found(t *testing.T) (to *town, first, second *house) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("unpacking layers sets owners: needs root")
	}
	authority, err := pki.Temporary(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	to = &town{authority: authority, api: clienttest.NewMemory()}
	first = &house{root: t.TempDir()}
	first.images = openIn(t, first.root)
	to.origin = to.listen(t, registry.Origin{Images: first.images, Hosts: []string{"localhost:5000", "first:5000"}, Node: "first"})
	to.settle(t, "first", first)
	second = &house{images: open(t)}
	to.settle(t, "second", second)
	return to, first, second
}

func open(t *testing.T) *image.Store {
	t.Helper()
	return openIn(t, t.TempDir())
}

func openIn(t *testing.T, root string) *image.Store {
	t.Helper()
	s, err := image.Open(image.Config{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// tls is that of a node.
func (to *town) tls(t *testing.T, node string) *tls.Config {
	t.Helper()
	both := pki.KubeletLeaf(node, []string{"127.0.0.1"})
	both.Client = true
	leaf, err := to.authority.Issue(both)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, RootCAs: to.authority.Pool(), Certificates: []tls.Certificate{*leaf},
		ClientCAs: to.authority.Pool(), ClientAuth: tls.VerifyClientCertIfGiven,
	}
}

// listen serves with TLS, and gives HOST:PORT.
func (to *town) listen(t *testing.T, h http.Handler) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS = to.tls(t, "any")
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// settle makes a node that shares its images and asks for those of others.
func (to *town) settle(t *testing.T, name string, h *house) {
	t.Helper()
	sharing := registry.NewSharing(h.images, func(r *http.Request) bool { return len(r.TLS.VerifiedChains) > 0 })
	at := netip.MustParseAddrPort(to.listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.sent.Add(1)
		if h.lie != nil {
			h.lie(w, r)
			return
		}
		sharing.ServeHTTP(w, r)
	})))
	config := to.tls(t, name)
	h.images.Join(New(Config{Transport: to.api, NodeName: name, TLS: config, Origin: Ask(to.origin, config)}))
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: at.Addr().String()}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(at.Port())
	if _, err := client.Nodes.Create(t.Context(), to.api, n); err != nil {
		t.Fatal(err)
	}
}

// tell has a node say that it has an image.
func (to *town) tell(t *testing.T, node string, img image.Image) {
	t.Helper()
	n, err := client.Nodes.Get(t.Context(), to.api, "", node)
	if err != nil {
		t.Fatal(err)
	}
	n = n.DeepCopy()
	n.Status.Images = []corev1.ContainerImage{{Names: append(img.Digests, img.Tags...)}}
	if _, err := client.Nodes.UpdateStatus(t.Context(), to.api, n); err != nil {
		t.Fatal(err)
	}
}

func build(t *testing.T, s *image.Store, ref string) image.Image {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	content := strings.Repeat("content", 10_000)
	if err := w.WriteHeader(&tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write([]byte(content))
	if err = errors.Join(err, w.Close()); err != nil {
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
	img, err := b.Commit(t.Context(), ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}, []image.Layer{layer}, image.Naming{Ref: ref})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// What was built on the server runs on another node, by tag and by digest, under
// any name of the server's registry, and though the image is said to be elsewhere.
func TestOwnImages(t *testing.T) {
	_, first, second := found(t)
	want := build(t, first.images, "localhost:5000/team/app:1")
	for _, ref := range []string{
		"localhost:5000/team/app:1", "first:5000/team/app:1", "localhost:5000/team/app@" + want.Manifest.String(),
	} {
		got, err := second.images.Pull(t.Context(), ref, image.TransferOptions{Architecture: "amd64"})
		if err != nil || got.ID != want.ID {
			t.Fatalf("Pull(%s) = %s, %v; want %s", ref, got.ID, err, want.ID)
		}
		if _, err := second.images.Prepare("c", ref); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := second.images.Pull(t.Context(), "localhost:1/none:1", image.TransferOptions{}); err == nil {
		t.Error("an image that nobody has was found")
	}
	if _, _, err := second.images.Made("localhost:5000/team/app:1"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("what was fetched counts as made here: %v", err)
	}
}

// guarded is a registry with one image for those who know the password; it counts
// the blobs that it sent.
func guarded(t *testing.T) (ref string, made image.Image, blobs *atomic.Int32) {
	t.Helper()
	store := open(t)
	server := httptest.NewUnstartedServer(nil)
	host := server.Listener.Addr().String()
	blobs = &atomic.Int32{}
	g, err := registry.New(registry.Config{Images: store, Hosts: []string{host}, Allow: func(r *http.Request, _ bool) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			blobs.Add(1)
		}
		_, password, _ := r.BasicAuth()
		return password == "sesame"
	}})
	if err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = g
	server.Start()
	t.Cleanup(server.Close)
	ref = host + "/team/secret:1"
	return ref, build(t, store, ref), blobs
}

// The registry says who may have its image; the bytes come from a node.
func TestContent(t *testing.T) {
	to, first, second := found(t)
	ref, made, blobs := guarded(t)
	knows := image.TransferOptions{Auth: image.Auth{Username: "u", Password: "sesame"}, Architecture: "amd64"}
	img, err := first.images.Pull(t.Context(), ref, knows)
	if err != nil {
		t.Fatal(err)
	}
	to.tell(t, "first", img)
	before := blobs.Load()
	repo, _, _ := strings.Cut(ref, ":1")
	for _, name := range []string{ref, strings.TrimSuffix(ref, ":1") + "@" + made.Manifest.String(), repo} {
		if _, err := second.images.Pull(t.Context(), name, image.TransferOptions{}); err == nil {
			t.Errorf("%s was had without the password", name)
		}
	}
	got, err := second.images.Pull(t.Context(), ref, knows)
	if err != nil || got.ID != made.ID {
		t.Fatalf("Pull = %s, %v", got.ID, err)
	}
	if n := blobs.Load() - before; n != 0 || first.sent.Load() == 0 {
		t.Errorf("%d blobs from the registry, %d from the node; want all from the node", n, first.sent.Load())
	}
}

// A node that lies, refuses, hangs up or sends elsewhere costs an attempt: the
// registry has the content too.
func TestBadNode(t *testing.T) {
	for name, lie := range map[string]func(made image.Image) http.HandlerFunc{
		"other bytes": func(made image.Image) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, made.Layers[0].Size)) }
		},
		"half": func(made image.Image) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "1000000")
				_, _ = w.Write(make([]byte, made.Layers[0].Size/2))
			}
		},
		"cut": func(made image.Image) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.(http.Flusher).Flush()
				_, _ = w.Write(make([]byte, made.Layers[0].Size/2))
				panic(http.ErrAbortHandler)
			}
		},
		"no": func(image.Image) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
		},
		"too busy": func(image.Image) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Retry-After", "30")
				w.WriteHeader(http.StatusTooManyRequests)
			}
		},
		"elsewhere": func(image.Image) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			to, first, second := found(t)
			ref, made, _ := guarded(t)
			to.tell(t, "first", made)
			first.lie = lie(made)
			began := time.Now()
			got, err := second.images.Pull(t.Context(), ref, image.TransferOptions{
				Auth: image.Auth{Username: "u", Password: "sesame"}, Architecture: "amd64",
			})
			if err != nil || got.ID != made.ID {
				t.Fatalf("Pull = %s, %v", got.ID, err)
			}
			if n := first.sent.Load(); n == 0 || n > 4 {
				t.Errorf("the node was asked %d times", n)
			}
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// What the disk of a node has made of a layer does not reach another: that has it of the
// registry, and the first puts its own aside.
func TestDamagedNode(t *testing.T) {
	to, first, second := found(t)
	ref, made, _ := guarded(t)
	knows := image.TransferOptions{Auth: image.Auth{Username: "u", Password: "sesame"}, Architecture: "amd64"}
	img, err := first.images.Pull(t.Context(), ref, knows)
	if err != nil {
		t.Fatal(err)
	}
	to.tell(t, "first", img)
	file := filepath.Join(first.root, "blobs", "sha256", made.Layers[0].Digest.Encoded())
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 4
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := second.images.Pull(t.Context(), ref, knows)
	if err != nil || got.ID != made.ID || first.sent.Load() == 0 {
		t.Fatalf("Pull = %s, %v; the node was asked %d times", got.ID, err, first.sent.Load())
	}
	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Error("the damaged layer is where it was: ", err)
	}
}

// Content is for nodes, with their certificate, by digest, and only to be read.
func TestSharing(t *testing.T) {
	to, first, _ := found(t)
	made := build(t, first.images, "app:1")
	sharing := registry.NewSharing(first.images, func(r *http.Request) bool { return len(r.TLS.VerifiedChains) > 0 })
	at := "https://" + to.listen(t, sharing)
	config := to.tls(t, "second")
	bare := config.Clone()
	bare.Certificates = nil
	for _, test := range []struct {
		tls          *tls.Config
		method, path string
		want         int
	}{
		{config, "GET", "/v2/library/app/blobs/" + made.ID, 200},
		{config, "HEAD", "/v2/whatever/manifests/" + made.Manifest.String(), 200},
		{config, "GET", "/v2/library/app/manifests/1", 404},
		{config, "GET", "/v2/_catalog", 404},
		{config, "GET", "/v2/app/blobs/sha256:" + strings.Repeat("0", 64), 404},
		{config, "PUT", "/v2/app/blobs/uploads/", 405},
		{bare, "GET", "/v2/library/app/blobs/" + made.ID, 403},
	} {
		r, err := http.NewRequestWithContext(t.Context(), test.method, at+test.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Client{Transport: bounded(test.tls)}).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != test.want {
			t.Errorf("%s %s: %d, want %d", test.method, test.path, answer.StatusCode, test.want)
		}
	}
}
