package engine

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// layer is a tar of some files; a content that begins with "->" is a symbolic
// link.
func (n *node) layer(files map[string]string) []byte {
	n.t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, content := range files {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}
		if to, link := strings.CutPrefix(content, "->"); link {
			h = &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
			content = ""
		}
		n.must(w.WriteHeader(h))
		_, err := w.Write([]byte(content))
		n.must(err)
	}
	n.must(w.Close())
	return buf.Bytes()
}

// TestAccountsComeFromTheUnitedLayers: an upper layer's users hide a lower
// one's, and a link in an image leads to the image's files, never the host's.
func TestAccountsComeFromTheUnitedLayers(t *testing.T) {
	n := newNode(t)
	n.must(n.addImage("exam.test/upper:1", built.layer, n.layer(map[string]string{"etc/passwd": "web:x:70:71::/:\n"})))
	n.must(n.addImage("exam.test/link:1", built.layer, n.layer(map[string]string{"etc/passwd": "->/../../accounts", "accounts": "web:x:80:81::/:\n"})))
	secret := filepath.Join(n.dir, "host-passwd")
	n.must(os.WriteFile(secret, []byte("web:x:0:0::/:\n"), 0o644))
	n.must(n.addImage("exam.test/escape:1", built.layer, n.layer(map[string]string{"etc/passwd": "->" + secret})))

	for ref, want := range map[string]int64{examImage: 33, "exam.test/upper:1": 70, "exam.test/link:1": 80, "exam.test/escape:1": -1} {
		pod := podConfig(strings.NewReplacer("/", "-", ":", "-").Replace(ref))
		s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
		n.must(err)
		main := containerConfig("wait")
		main.Image.Image = ref
		main.Linux.SecurityContext.RunAsUsername = "web"
		c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
		if want < 0 {
			if err == nil {
				t.Errorf("%s: a user was found on the host", ref)
			}
			continue
		}
		n.must(err)
		if got := n.container(c.ContainerId).User.GetLinux().GetUid(); got != want {
			t.Errorf("%s: user web is %d, want %d", ref, got, want)
		}
	}
}

// TestImageVolumeOfSeveralLayers shows them united, and keeps them for as long as
// the container is there.
func TestImageVolumeOfSeveralLayers(t *testing.T) {
	n := newNode(t)
	const ref = "exam.test/volume:1"
	n.must(n.addImage(ref, n.layer(map[string]string{"a": "below", "b": "below"}), n.layer(map[string]string{"b": "above"})))
	pod := podConfig("volume")
	main := containerConfig("cat", "/data/a", "then", "cat", "/data/b", "then", "echo", "")
	main.Mounts = []*rt.Mount{{ContainerPath: "/data", Image: &rt.ImageSpec{Image: ref}}}
	pod.LogDirectory, main.LogPath = filepath.Join(n.dir, "logs"), "main.log"
	s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
	n.must(err)
	_, err = n.engine.RemoveImage(t.Context(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: ref}})
	n.must(err)
	_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	_, err = n.runtime.Wait(context.Background(), c.ContainerId)
	n.must(err)
	log, err := os.ReadFile(filepath.Join(n.dir, "logs", "main.log"))
	if err != nil || !strings.Contains(string(log), "belowabove") {
		t.Errorf("the volume shows %q, %v", log, err)
	}
	_, err = n.engine.RemoveContainer(t.Context(), &rt.RemoveContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	keys, err := n.images.Snapshots()
	n.must(err)
	if len(keys) != 0 {
		t.Errorf("snapshots %v stay", keys)
	}
}

// An image that is removed by one of its names is gone by all of them.
func TestRemoveImageByAnyName(t *testing.T) {
	n := newNode(t)
	layer := n.layer(map[string]string{"one": "file"})
	for _, ref := range []string{"exam.test/a:1", "other.test/b:2"} {
		n.must(n.addImage(ref, layer))
	}
	get := func(ref string) *rt.Image {
		t.Helper()
		r, err := n.engine.ImageStatus(t.Context(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: ref}})
		n.must(err)
		return r.Image
	}
	if a, b := get("exam.test/a:1"), get("other.test/b:2"); a == nil || b == nil || a.Id != b.Id {
		t.Fatalf("not one image of two names: %v %v", a, b)
	}
	_, err := n.engine.RemoveImage(t.Context(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: "exam.test/a:1"}})
	n.must(err)
	if b := get("other.test/b:2"); b != nil {
		t.Errorf("is still there: %v", b)
	}
	if get(examImage) == nil {
		t.Error("another image went with it")
	}
}
