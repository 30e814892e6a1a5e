package engine

import (
	"encoding/base64"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// TestPull brings an image from a registry that wants a password, and runs it.
func TestPull(t *testing.T) {
	n := newNode(t)
	inside := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="exam"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inside.ServeHTTP(w, r)
	}))
	defer srv.Close()
	ref := strings.TrimPrefix(srv.URL, "http://") + "/exam/probe:2"
	n.must(n.images.Tag(examImage, ref))
	_, err := n.images.Push(t.Context(), ref, image.TransferOptions{Auth: image.Auth{Username: "me", Password: "secret"}})
	n.must(err)
	local, err := n.images.Get(ref)
	n.must(err)
	_, err = n.engine.RemoveImage(t.Context(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: local.ID}})
	n.must(err)
	spec := &rt.ImageSpec{Image: ref}
	if st, err := n.engine.ImageStatus(t.Context(), &rt.ImageStatusRequest{Image: spec}); err != nil || st.Image != nil {
		t.Fatalf("the image is still here: %v, %v", st, err)
	}

	for what, auth := range map[string]*rt.AuthConfig{"nobody": nil, "a stranger": {Username: "me", Password: "guess"}} {
		_, err = n.engine.PullImage(t.Context(), &rt.PullImageRequest{Image: spec, Auth: auth})
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s pulls: %v, want a refusal", what, err)
		}
	}
	_, err = n.engine.PullImage(t.Context(), &rt.PullImageRequest{Image: &rt.ImageSpec{Image: ref + "-none"}, Auth: &rt.AuthConfig{Username: "me", Password: "secret"}})
	if status.Code(err) != codes.NotFound {
		t.Errorf("a tag that is not there: %v", err)
	}
	var told atomic.Int32
	over := false
	n.engine.cfg.OnPull = func(r *rt.PullImageRequest) (func(image.Progress), func()) {
		if r.GetImage().GetImage() != ref {
			t.Errorf("told of a pull of %q", r.GetImage().GetImage())
		}
		return func(image.Progress) { told.Add(1) }, func() { over = true }
	}
	auth := &rt.AuthConfig{Auth: base64.StdEncoding.EncodeToString([]byte("me:secret"))}
	pulled, err := n.engine.PullImage(t.Context(), &rt.PullImageRequest{Image: spec, Auth: auth})
	n.must(err)
	if told.Load() == 0 || !over {
		t.Error("nobody was told of the progress, or of its end")
	}
	st, err := n.engine.ImageStatus(t.Context(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: pulled.ImageRef}})
	n.must(err)
	if st.Image.GetId() != pulled.ImageRef || len(st.Image.GetRepoDigests()) == 0 || len(st.Image.GetRepoTags()) == 0 {
		t.Errorf("pulled %q, its status is %v", pulled.ImageRef, st.Image)
	}
	pod := podConfig("pulled")
	s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	main := containerConfig("exit", "5")
	main.Image.Image = pulled.ImageRef
	c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
	n.must(err)
	_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	ended, err := n.runtime.Wait(t.Context(), c.ContainerId)
	if err != nil || ended.ExitCode != 5 {
		t.Errorf("the pulled program ended with %+v, %v", ended, err)
	}
	if got := n.container(c.ContainerId).ImageRef; !strings.Contains(got, "@sha256:") {
		t.Errorf("the container's image is %q, want a digest reference", got)
	}
}

// What the node's owner has pinned is told to whoever collects garbage.
func TestPinnedImage(t *testing.T) {
	n := newNode(t)
	spec := &rt.ImageSpec{Image: examImage}
	for _, pinned := range []bool{true, false} {
		n.must(n.images.Keep(examImage, pinned))
		one, err := n.engine.ImageStatus(t.Context(), &rt.ImageStatusRequest{Image: spec})
		n.must(err)
		all, err := n.engine.ListImages(t.Context(), &rt.ListImagesRequest{})
		n.must(err)
		if one.Image.Pinned != pinned || len(all.Images) != 1 || all.Images[0].Pinned != pinned {
			t.Errorf("pinned %v: %v, %v", pinned, one, all)
		}
	}
}
