package node_test

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/network"
)

// plugin gives every pod an address, except those whose names say what it does to
// them instead.
const plugin = `#!/bin/sh
case "$CNI_COMMAND-$CNI_ARGS" in
ADD-*POD_NAME=hangs*) sleep 100000 & wait;;
ADD-*POD_NAME=endless*) cat /dev/zero;;
ADD-*POD_NAME=html*) echo '<html>no</html>';;
ADD-*POD_NAME=nothing*) ;;
ADD-*POD_NAME=complains*) echo '{"cniVersion":"1.0.0","code":11,"msg":"no address is left"}'; exit 1;;
ADD-*) echo '{"cniVersion":"1.0.0","ips":[{"address":"198.51.100.8/24"}]}';;
VERSION-*) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}';;
esac
`

// A plugin that hangs or prints nonsense for a pod holds that pod back, which says
// why and can be removed; others come and go.
func TestBadPlugins(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(n *node) {
		n.apart()
		lists, programs := filepath.Join(n.dir, "net.d"), filepath.Join(n.dir, "cni")
		n.must(os.Mkdir(lists, 0o700))
		n.must(os.Mkdir(programs, 0o700))
		n.must(os.WriteFile(filepath.Join(programs, "bad"), []byte(plugin), 0o755)) //nolint:gosec // it is a program
		n.must(os.WriteFile(filepath.Join(lists, "1.conflist"), []byte(`{"cniVersion":"1.0.0","name":"bad","plugins":[{"type":"bad"}]}`), 0o600))
		n.connect = func(c *network.Config) {
			// Long for a plugin that does something, short for who waits here.
			c.CNIConfDir, c.CNIBinDirs, c.CNITimeout = lists, []string{programs}, 10*time.Second
		}
	})
	n.create(n.pod("before"))
	before := statuses(n.ready("before"))["c"].ContainerID
	wants := map[string]string{
		"hangs": "did not end", "endless": "printed more than", "html": "invalid character", "nothing": "", "complains": "no address is left",
	}
	for name := range wants {
		n.create(n.pod(name))
	}
	n.create(n.pod("meanwhile"))
	n.ready("meanwhile")
	for name, want := range wants {
		until(t, name+" says why", func() bool {
			return says(n.events(name), "FailedCreatePodSandBox: Failed to create pod sandbox: ", want)
		})
		if p := n.get(name); p.Status.Phase != corev1.PodPending {
			t.Errorf("%s is %s: %v", name, p.Status.Phase, p.Status.ContainerStatuses)
		}
		n.delete(name)
	}
	for name := range wants {
		until(t, name+" is gone", func() bool { return n.gone(name) })
	}
	if s := statuses(n.ready("before"))["c"]; s.ContainerID != before || s.RestartCount != 0 {
		t.Errorf("the pod beside them: %+v", s)
	}
}

// says finds an event of a reason with a text, whose message fits on a screen.
func says(events, reason, text string) bool {
	for line := range strings.Lines(events) {
		if strings.HasPrefix(line, reason) && strings.Contains(line, text) && len(line) > len(reason)+10 && len(line) < 2000 {
			return true
		}
	}
	return false
}

// deceiver is a registry that delivers each repository's image in its own way.
type deceiver struct {
	*httptest.Server
	images map[string]delivery
}

// delivery is an image of one layer.
type delivery struct{ manifest, config, layer []byte }

func newDeceiver(t *testing.T) *deceiver {
	t.Helper()
	d := &deceiver{images: map[string]delivery{}}
	d.Server = httptest.NewServer(d)
	t.Cleanup(func() {
		d.CloseClientConnections() // some answer would never end
		d.Close()
	})
	return d
}

// add makes a repository's image of the layer that write writes, before anybody
// asks for it.
func (d *deceiver) add(t *testing.T, repository string, level int, write func(io.Writer)) {
	t.Helper()
	var packed bytes.Buffer
	z, err := gzip.NewWriterLevel(&packed, level)
	if err != nil {
		t.Fatal(err)
	}
	plain := digest.SHA256.Digester()
	both := bufio.NewWriterSize(io.MultiWriter(z, plain.Hash()), 1<<20)
	write(both)
	if err := errors.Join(both.Flush(), z.Close()); err != nil {
		t.Fatal(err)
	}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: ocispec.ImageConfig{Entrypoint: []string{"/intruder"}, Cmd: []string{"wait"}}}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{plain.Digest()}}
	one := delivery{layer: packed.Bytes()}
	one.config, err = json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	one.manifest, err = json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(one.config), Size: int64(len(one.config))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(one.layer), Size: int64(len(one.layer))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.images[repository] = one
}

func (d *deceiver) ref(repository string) string {
	return strings.TrimPrefix(d.URL, "http://") + "/" + repository + ":1"
}

// ServeHTTP tells the truth about manifests and configs, and lies about layers.
func (d *deceiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	repository := strings.SplitN(r.URL.Path+"///", "/", 4)[2]
	one := d.images[repository]
	switch {
	case repository == "busy":
		w.WriteHeader(http.StatusTooManyRequests)
		fmt.Fprint(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"you have had enough for today"}]}`)
	case repository == "broken":
		w.WriteHeader(http.StatusInternalServerError)
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_, _ = w.Write(one.manifest)
	case strings.HasSuffix(r.URL.Path, digest.FromBytes(one.config).String()):
		_, _ = w.Write(one.config)
	default:
		lie(w, r, repository, one.layer)
	}
}

// lie delivers a layer in the repository's way.
func lie(w http.ResponseWriter, r *http.Request, repository string, layer []byte) {
	switch repository {
	case "other":
		other := bytes.Clone(layer)
		other[len(other)/2] ^= 1
		_, _ = w.Write(other)
	case "short":
		_, _ = w.Write(layer[:len(layer)/2])
	case "long":
		_, _ = w.Write(append(bytes.Clone(layer), layer...))
	case "elsewhere":
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusTemporaryRedirect)
	case "drips":
		w.Header().Set("Content-Length", fmt.Sprint(len(layer)))
		_, _ = w.Write(layer[:1])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(layer))
	}
}

// Whatever a registry does to a pod's image, the pod says it in a sentence and can
// be removed, and another pod gets its image from the same registry.
func TestLyingRegistries(t *testing.T) {
	n := newNode(t, nil)
	d := newDeceiver(t)
	wants := map[string]string{
		"other": "digest", "short": "ended after", "long": "more than the", "elsewhere": "no business",
		"busy": "had enough", "broken": "500",
	}
	d.add(t, "honest", gzip.BestSpeed, func(w io.Writer) { _, _ = w.Write(program()) })
	for _, name := range []string{"other", "short", "long", "elsewhere", "busy", "broken", "drips"} {
		// Each its own: what one has delivered truly is nobody else's to spoil.
		own := file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body: bytes.Repeat([]byte(name), 10000)}
		d.add(t, name, gzip.NoCompression, func(w io.Writer) { _, _ = w.Write(layer(own)) })
	}
	create := func(name string) {
		p := n.pod(name)
		p.Spec.Containers[0].Image = d.ref(name)
		n.create(p)
	}
	for name := range wants {
		create(name)
	}
	create("drips")
	create("honest")
	n.ready("honest")
	for name, want := range wants {
		n.await(name, "says why", func(*corev1.Pod) bool { return says(n.events(name), "Failed: Failed to pull image ", want) })
		n.await(name, "shows why", func(p *corev1.Pod) bool {
			w := statuses(p)["c"].State.Waiting
			return w != nil && (w.Reason == "ErrImagePull" || w.Reason == "ImagePullBackOff") && strings.Contains(w.Message, want)
		})
		if left, err := n.images.Get(d.ref(name)); err == nil {
			t.Errorf("%s: there is an image: %v", name, left)
		}
	}
	for name := range wants {
		n.delete(name)
	}
	n.delete("drips")
	for _, name := range []string{"other", "short", "long", "elsewhere", "busy", "broken", "drips"} {
		until(t, name+" is gone", func() bool { return n.gone(name) })
	}
	if s := statuses(n.ready("honest"))["c"]; s.RestartCount != 0 {
		t.Errorf("the pod beside them: %+v", s)
	}
}

// An image of more files than a layer may have is refused with the number, and
// leaves nothing; a pod beside it gets its image meanwhile.
func TestTooManyFiles(t *testing.T) {
	n := newNode(t, nil)
	n.create(n.pod("beside"))
	const entries = 1<<20 + 1
	d := newDeceiver(t)
	d.add(t, "many", gzip.BestSpeed, func(w io.Writer) {
		header := layer(file{})[:512]
		copy(header, "./\x00")
		header[156] = '5' // a directory, the same again and again: that costs the least
		random := make([]byte, 1<<16)
		_, _ = rand.Read(random) // so that the layer is no bomb by its compression
		for i := range entries {
			fill(header, i, random[i%(len(random)-8):])
			_, _ = w.Write(header)
		}
		_, _ = w.Write(make([]byte, 1024))
	})
	p := n.pod("many")
	p.Spec.Containers[0].Image = d.ref("many")
	n.create(p)
	n.ready("beside")
	until(t, "the pod says why", func() bool { return says(n.events("many"), "Failed: Failed to pull image ", "more than 1048576 files") })
	left, err := filepath.Glob(filepath.Join(n.imageDir, "ingest", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left of the layer: %v, %v", left, err)
	}
}

// fill gives a tar header an owner's name out of some noise, and its checksum.
func fill(header []byte, i int, noise []byte) {
	const name, sum, after = 265, 148, 156
	for j, b := range noise[:8] {
		header[name+j] = 'a' + (b+byte(i>>(j&15)))%26
	}
	copy(header[sum:after], "        ")
	total := 0
	for _, b := range header {
		total += int(b)
	}
	copy(header[sum:after], "000000\x00 ")
	for at := after - 3; total > 0; at, total = at-1, total>>3 {
		header[at] = '0' + byte(total&7)
	}
}

// What an image or a pod names that isn't there, or is no such thing, is said by
// the pod; nothing is read or made for it.
func TestBadNames(t *testing.T) {
	n := newNode(t, nil)
	n.create(n.pod("beside"))
	c := newCanary(n)
	wants := map[string]string{}
	for fd := 3; fd < 16; fd++ { // CVE-2024-21626, by the image's own word
		name := fmt.Sprintf("descriptor-%d", fd)
		ref := "test.local/" + name + ":1"
		n.must(n.addImageOf(ref, ocispec.ImageConfig{Entrypoint: []string{"/intruder"}, WorkingDir: fmt.Sprintf("/proc/self/fd/%d", fd)}, program()))
		p := n.pod(name, "climb", c.file)
		p.Spec.Containers[0].Image = ref
		n.create(p)
		wants[name] = fmt.Sprintf("/proc/self/fd/%d", fd)
	}
	for name, profile := range map[string]string{"no-profile": "is-not-here.json", "no-json": "nonsense.json"} {
		p := n.pod(name)
		p.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: &profile}}
		n.create(p)
		wants[name] = profile
	}
	profiles := filepath.Join(n.dir, "k", "seccomp")
	n.must(os.MkdirAll(profiles, 0o700))
	n.must(os.WriteFile(filepath.Join(profiles, "nonsense.json"), []byte("no profile"), 0o600))
	for name, want := range wants {
		n.await(name, "says why", func(p *corev1.Pod) bool {
			s := statuses(p)["c"].State
			text := ""
			if s.Waiting != nil {
				text = s.Waiting.Message
			}
			if s.Terminated != nil {
				text = s.Terminated.Message
			}
			return strings.Contains(text, want)
		})
		if out := n.output(n.get(name), "c"); out != "" {
			t.Errorf("%s ran: %s", name, out)
		}
	}
	c.check(t)
	if s := statuses(n.ready("beside"))["c"]; s.RestartCount != 0 {
		t.Errorf("the pod beside them: %+v", s)
	}
}
