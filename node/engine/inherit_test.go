package engine

import (
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/image"
)

// keeping is a pod whose containers begin with each other's files.
func keeping(name, uid string) *rt.PodSandboxConfig {
	pod := podConfig(name)
	pod.Metadata.Uid = uid
	pod.Annotations = map[string]string{cri.FilesAnnotation: "word"}
	return pod
}

// attempt runs a command to its end and gives its exit code.
func (n *node) attempt(sandbox string, nth uint32, args ...string) int32 {
	n.t.Helper()
	id, err := n.nth(sandbox, nth, args...)
	n.must(err)
	_, err = n.engine.StartContainer(n.t.Context(), &rt.StartContainerRequest{ContainerId: id})
	n.must(err)
	st, err := n.runtime.Wait(n.t.Context(), id)
	n.must(err)
	return int32(st.ExitCode)
}

// nth makes the nth container of a pod.
func (n *node) nth(sandbox string, nth uint32, args ...string) (string, error) {
	cfg := containerConfig(args...)
	cfg.Metadata.Attempt = nth
	c, err := n.engine.CreateContainer(n.t.Context(), &rt.CreateContainerRequest{PodSandboxId: sandbox, Config: cfg})
	return c.GetContainerId(), err
}

func (n *node) forget(sandbox string) {
	n.t.Helper()
	_, err := n.engine.RemovePodSandbox(n.t.Context(), &rt.RemovePodSandboxRequest{PodSandboxId: sandbox})
	n.must(err)
}

// A container begins with what the one before it has written, after a restart of the
// engine too, and never beside it.
func TestFilesStayFromContainerToContainer(t *testing.T) {
	n := newNode(t)
	pod := n.run(keeping("a", "1"))
	if code := n.attempt(pod, 0, "write", "/note", "hello"); code != 0 {
		t.Fatalf("write: exit code %d", code)
	}
	n.close()
	n.open()
	if code := n.attempt(pod, 1, "cat", "/note"); code != 0 {
		t.Errorf("the second container has not the first one's file: exit code %d", code)
	}
	id, err := n.nth(pod, 2, "wait")
	n.must(err)
	_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: id})
	n.must(err)
	if _, err := n.nth(pod, 3, "wait"); err == nil || !strings.Contains(err.Error(), "has not ended") {
		t.Errorf("two containers on the same files: %v", err)
	}
	_, err = n.engine.StopContainer(t.Context(), &rt.StopContainerRequest{ContainerId: id})
	n.must(err)
	begun := &ctr{ID: newID(), SandboxID: pod, Config: containerConfig("wait"), Kept: keptKey(keeping("a", "1"), containerConfig("wait"))}
	begun.Config.Metadata.Attempt = 4
	n.must(n.engine.records.reserveContainer(begun)) // somebody's call that is not done yet
	if _, err := n.nth(pod, 5, "wait"); err == nil || !strings.Contains(err.Error(), "is being made") {
		t.Errorf("beside a container that is being made: %v", err)
	}
	n.must(n.engine.records.dropContainer(begun))
	other := n.run(podConfig("plain"))
	if code := n.attempt(other, 0, "cat", "/note"); code == 0 {
		t.Error("a pod that has not asked has the file")
	}
}

// What a pod keeps goes with it, unless it is held for a pod of its name that has its
// word; a pod of another name or namespace never has it.
func TestFilesGoWithThePod(t *testing.T) {
	n := newNode(t)
	prefix := image.KeptPrefix("test", "a", "word")
	pod := n.run(keeping("a", "1"))
	n.attempt(pod, 0, "write", "/note", "hello")
	n.must(n.images.Hold(prefix+"main", "next"))
	n.forget(pod)

	foreign := keeping("a", "2")
	foreign.Metadata.Namespace = "other"
	if code := n.attempt(n.run(foreign), 0, "cat", "/note"); code == 0 {
		t.Error("a pod of another namespace has the file")
	}
	if code := n.attempt(n.run(keeping("b", "3")), 0, "cat", "/note"); code == 0 {
		t.Error("a pod of another name has the file")
	}
	next := n.run(keeping("a", "4"))
	if code := n.attempt(next, 0, "cat", "/note"); code != 0 {
		t.Errorf("the successor has not the file: exit code %d", code)
	}
	n.forget(next)
	if keys, err := n.images.Kept(prefix); err != nil || len(keys) > 0 {
		t.Errorf("kept of a pod that has gone: %v, %v", keys, err)
	}
}

// Another image has other files below, and so what was written begins anew; what somebody
// holds is refused to it instead.
func TestFilesOfAnotherImage(t *testing.T) {
	n := newNode(t)
	prefix := image.KeptPrefix("test", "a", "word")
	pod := n.run(keeping("a", "1"))
	n.attempt(pod, 0, "write", "/note", "hello")
	n.must(n.addImage(examImage, built.layer, built.layer))
	if code := n.attempt(pod, 1, "cat", "/note"); code == 0 {
		t.Error("files of one image are seen above another")
	}
	n.attempt(pod, 2, "write", "/note", "hello")
	n.must(n.images.Hold(prefix+"main", "next"))
	n.must(n.addImage(examImage, built.layer))
	if _, err := n.nth(pod, 3, "wait"); err == nil || !strings.Contains(err.Error(), "stands on the image") {
		t.Errorf("what is held, with another image: %v", err)
	}
}
