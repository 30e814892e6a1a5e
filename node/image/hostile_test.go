package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// liar is a registry with one image, of which each blob's answer can be a lie.
type liar struct {
	*httptest.Server
	manifest, config, layer []byte
	// lie answers for the layer; nil tells the truth.
	lie http.HandlerFunc
	// tries counts the requests for the layer.
	tries atomic.Int32
}

func lying(t *testing.T) *liar {
	t.Helper()
	needRoot(t)
	var plain, packed bytes.Buffer
	if _, err := io.Copy(&plain, layerTar(t, entry{name: "f", body: strings.Repeat("0123456789abcdef", 20000)})); err != nil {
		t.Fatal(err)
	}
	z, _ := gzip.NewWriterLevel(&packed, gzip.NoCompression)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	l := &liar{layer: packed.Bytes()}
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: architecture("")}}
	config.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain.Bytes())}}
	l.config, _ = json.Marshal(config)
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(l.config), Size: int64(len(l.config))},
		Layers:    []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(l.layer), Size: int64(len(l.layer))}},
	}
	m.SchemaVersion = 2
	l.manifest, _ = json.Marshal(m)
	l.Server = httptest.NewServer(l)
	t.Cleanup(l.Close)
	return l
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.Contains(r.URL.Path, "/manifests/"):
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_, _ = w.Write(l.manifest)
	case strings.HasSuffix(r.URL.Path, digest.FromBytes(l.config).String()):
		_, _ = w.Write(l.config)
	case l.lie != nil:
		l.tries.Add(1)
		l.lie(w, r)
	default:
		l.truth(w, r)
	}
}

func (l *liar) truth(w http.ResponseWriter, r *http.Request) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(l.layer))
}

func (l *liar) ref() string { return strings.TrimPrefix(l.URL, "http://") + "/a:1" }

// Whatever a registry does, the pull ends, says why, and leaves nothing visible.
func TestLyingRegistry(t *testing.T) {
	for name, c := range map[string]struct {
		lie  func(*liar) http.HandlerFunc
		want string
	}{
		"wrong content": {func(l *liar) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				wrong := bytes.Clone(l.layer)
				wrong[100] ^= 1
				_, _ = w.Write(wrong)
			}
		}, "digest"},
		"wrong length": {func(l *liar) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(l.layer[:len(l.layer)/2]) }
		}, "ended after"},
		"endless": {func(l *liar) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) {
				_, _ = w.Write(l.layer)
				w.(http.Flusher).Flush()
				for {
					if _, err := w.Write(make([]byte, 1<<16)); err != nil {
						return
					}
				}
			}
		}, "more than the"},
		"denied": {func(*liar) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
		}, "access denied"},
		"redirect to metadata": {func(*liar) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, "http://169.254.169.254/latest", http.StatusTemporaryRedirect)
			}
		}, "no business"},
		"redirects for ever": {func(l *liar) http.HandlerFunc {
			return func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, l.URL+r.URL.Path+"x", http.StatusTemporaryRedirect)
			}
		}, "redirect 6"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := lying(t)
			l.lie = c.lie(l)
			s := open(t)
			start := time.Now()
			_, err := s.Pull(t.Context(), l.ref(), TransferOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("it took %s", took)
			}
			for _, dir := range []string{"layers", "ingest"} {
				left, _ := os.ReadDir(filepath.Join(s.root, dir))
				for _, e := range left {
					t.Errorf("visible: %s/%s", dir, e.Name())
				}
			}
			if list, err := s.List(); err != nil || len(list) != 0 {
				t.Errorf("images %v, %v", list, err)
			}
		})
	}
}

// A connection that breaks again and again is gone on with where it broke, one
// that is told to wait waits, and a trouble that passes is no failure.
func TestResume(t *testing.T) {
	l := lying(t)
	from := []int64{}
	l.lie = func(w http.ResponseWriter, r *http.Request) {
		at := int64(0)
		if span := r.Header.Get("Range"); span != "" {
			at, _ = strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(span, "bytes="), "-"), 10, 64)
		}
		switch l.tries.Load() {
		case 1:
			w.WriteHeader(http.StatusInternalServerError)
			return
		case 2:
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		from = append(from, at)
		size := int64(len(l.layer))
		end := min(at+size/3, size)
		w.Header().Set("Content-Length", fmt.Sprint(size-at))
		if at > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, size-1, size))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(l.layer[at:end]) // and no more, though more was promised
	}
	s := open(t)
	last := Progress{}
	if _, err := s.Pull(t.Context(), l.ref(), TransferOptions{Progress: func(p Progress) { last = p }}); err != nil {
		t.Fatal(err)
	}
	if len(from) < 3 || from[0] != 0 || from[1] == 0 || from[2] <= from[1] {
		t.Errorf("asked from %v, want ever later", from)
	}
	if last.Done != last.Total || last.Total != int64(len(l.layer)) {
		t.Errorf("last progress %+v", last)
	}
}

// A pull that was interrupted is gone on with by the next, of another process.
func TestResumeLater(t *testing.T) {
	l := lying(t)
	ctx, cancel := context.WithCancel(t.Context())
	l.lie = func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(l.layer)))
		_, _ = w.Write(l.layer[:len(l.layer)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	s := open(t)
	_, err := s.Pull(ctx, l.ref(), TransferOptions{Progress: func(p Progress) {
		if p.Done >= int64(len(l.layer)/2) {
			cancel()
		}
	}})
	if err == nil {
		t.Fatal("an interrupted pull succeeded")
	}
	again, err := Open(Config{Root: s.root})
	if err != nil {
		t.Fatal(err)
	}
	asked := ""
	l.lie = func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Get("Range")
		l.truth(w, r)
	}
	if _, err := again.Pull(t.Context(), l.ref(), TransferOptions{}); err != nil {
		t.Fatal(err)
	}
	if asked != fmt.Sprintf("bytes=%d-", len(l.layer)/2) {
		t.Errorf("asked for %q, want the second half", asked)
	}
}

// Where nobody listens, a pull fails at once; where nothing answers, soon.
func TestDeadRegistry(t *testing.T) {
	s := open(t)
	start := time.Now()
	_, err := s.Pull(t.Context(), "127.0.0.1:1/a:1", TransferOptions{})
	if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(start) > 30*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

// A mirror that hosts.toml names is asked first, and when it fails, the registry.
func TestMirror(t *testing.T) {
	l := lying(t)
	mirror := lying(t)
	mirror.lie = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }
	dir := t.TempDir()
	registry := strings.TrimPrefix(l.URL, "http://")
	if err := os.Mkdir(filepath.Join(dir, registry), 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("server = %q\n[host.%q] # a mirror\n  capabilities = ['pull', \"resolve\"]\n  [host.%q.header]\n  x-a = [\"b\"]\n", l.URL, mirror.URL, mirror.URL)
	if err := os.WriteFile(filepath.Join(dir, registry, "hosts.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t).Pull(t.Context(), l.ref(), TransferOptions{HostDirs: []string{dir}}); err != nil {
		t.Fatal(err)
	}
	if mirror.tries.Load() != 1 {
		t.Errorf("the mirror was asked %d times for the layer", mirror.tries.Load())
	}
}

// An image whose /dev, /proc or parents are links does not lead anywhere when it
// is unpacked, devices are nothing but files, and too many entries are refused.
func TestHostileTars(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		entries []entry
		err     error
	}{
		"dev is a link":     {[]entry{{name: "dev", kind: tar.TypeSymlink, link: "/dev"}, {name: "dev/sampan-canary", body: "x"}}, nil},
		"proc is a link":    {[]entry{{name: "proc", kind: tar.TypeSymlink, link: "/proc/self/root/tmp"}, {name: "proc/sampan-canary", body: "x"}}, nil},
		"hard link up":      {[]entry{{name: "h", kind: tar.TypeLink, link: "../../../etc/passwd"}}, os.ErrNotExist},
		"long name":         {[]entry{{name: strings.Repeat("a/", 3000), kind: tar.TypeDir}}, ErrTooLarge},
		"opaque through it": {[]entry{{name: "out", kind: tar.TypeSymlink, link: "/tmp"}, {name: "out/.wh..wh..opq"}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpackStream(t.Context(), layerTar(t, c.entries...), 1, t.TempDir())
			if c.err != nil && !errors.Is(err, c.err) {
				t.Errorf("error %v, want %v", err, c.err)
			}
			for _, p := range []string{"/dev/sampan-canary", "/tmp/sampan-canary"} {
				if _, err := os.Lstat(p); err == nil {
					t.Errorf("%s was made", p)
					os.Remove(p)
				}
			}
		})
	}
	x := &extractor{files: MaxLayerFiles}
	if err := x.count(&tar.Header{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("one entry too many: %v", err)
	}
}

// Zeros take no room, and a layer that is nothing else is refused.
func TestSparseAndBomb(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	body := strings.Repeat("\x00", 8<<20) + "end"
	if _, _, err := unpackStream(t.Context(), layerTar(t, entry{name: "sparse", body: body}), 1, dir); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "sparse"), &st); err != nil || st.Size != int64(len(body)) || st.Blocks*512 > 1<<20 {
		t.Errorf("size %d in %d bytes, %v", st.Size, st.Blocks*512, err)
	}
	b := &bomb{r: strings.NewReader("12345"), allowed: 4}
	if _, err := io.ReadAll(b); !errors.Is(err, ErrTooLarge) {
		t.Errorf("beyond the ratio: %v", err)
	}
}

// What a build remembers outlives its images, and no more than is asked.
func TestMemories(t *testing.T) {
	needRoot(t)
	s := open(t)
	img := build(t, s, "a:1", layerTar(t, entry{name: "f", body: "content"}))
	layer := Layer{Blob: img.Layers[0], DiffID: img.Config.RootFS.DiffIDs[0], Unpacked: 1024}
	if err := s.Remember("ab12", Memory{Layer: layer, Chain: img.Chain(0), Text: "COPY"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("a:1"); err != nil {
		t.Fatal(err)
	}
	if _, ok := s.Recall("ab12"); !ok {
		t.Error("a remembered layer went with its image")
	}
	if _, err := os.Stat(s.layerPath(img.Chain(0))); err != nil {
		t.Error(err)
	}
	done, err := s.PruneMemories(MaxMemories, 10, time.Time{})
	if err != nil || done.Memories != 1 {
		t.Errorf("prune: %+v, %v", done, err)
	}
	if _, ok := s.Recall("ab12"); ok || s.hasBlob(layer.Blob.Digest) {
		t.Error("a pruned layer is still here")
	}
}
