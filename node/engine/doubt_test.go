package engine

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A program that is none any more has its image looked at; the next failure says what was
// found. One that never was a program says nothing more than that.
func TestDoubt(t *testing.T) {
	for name, damage := range map[string]bool{"damaged": true, "whole": false} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			var text bytes.Buffer
			w := tar.NewWriter(&text)
			n.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "text", Mode: 0o755, Size: 3}))
			_, err := w.Write([]byte("no!"))
			n.must(errors.Join(err, w.Close()))
			n.must(n.addImage("text:1", text.Bytes(), built.layer))
			img, err := n.images.Get("text:1")
			n.must(err)
			places, err := n.images.Prepare("look", img.ID)
			n.must(err)
			program := filepath.Join(places.Lower[0], "probe")
			if damage {
				n.must(os.WriteFile(program, []byte("\x00 what a disk has made of it"), 0o755))
			}
			pod := n.run(podConfig("a"))
			fail := func(nth uint32) string {
				t.Helper()
				cfg := containerConfig()
				cfg.Image.Image, cfg.Metadata.Attempt = img.ID, nth
				if !damage {
					cfg.Command = []string{"/text"}
				}
				c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: pod, Config: cfg})
				n.must(err)
				_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.GetContainerId()})
				if err == nil || !strings.Contains(err.Error(), "exec format error") {
					t.Fatalf("%v", err)
				}
				return err.Error()
			}
			fail(0)
			<-n.engine.doubts.images[img.ID].looked
			const want = `the image is damaged on this node: `
			if said := fail(1); strings.Contains(said, want) != damage {
				t.Errorf("%s: %s", name, said)
			}
		})
	}
}

// Only what damage looks like is a symptom.
func TestSymptoms(t *testing.T) {
	looked := make(chan struct{})
	close(looked)
	e := &Engine{}
	e.doubts.images = map[string]*doubt{"id": {looked, "found"}}
	for failed, want := range map[error]bool{
		fmt.Errorf("exec /x: %w", unix.ENOEXEC): true, errors.New("read: input/output error"): true,
		fmt.Errorf("exec /x: %w", unix.ENOENT): false, errors.New("permission denied"): false,
	} {
		got := e.doubt(t.Context(), &ctr{ImageID: "id"}, failed)
		if told := strings.HasSuffix(got.Error(), " (found)"); told != want || !errors.Is(got, failed) {
			t.Errorf("%v becomes %v", failed, got)
		}
	}
}
