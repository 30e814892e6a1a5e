package node_test

import (
	"archive/tar"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller/localpath"
	"github.com/sampan-dev/sampan/internal/target"
)

// disk is a directory beside the node's own files.
func (n *node) disk(name string) string {
	n.Helper()
	dir := filepath.Join(n.dir, "disks", name)
	n.must(os.MkdirAll(dir, 0o755))
	return dir
}

// persistent makes a volume for whichever claim names its class, which is its name.
func (n *node) persistent(name string, source corev1.PersistentVolumeSource) {
	n.Helper()
	_, err := client.PersistentVolumes.Create(n.Context(), n.admin, n.volume(name, source))
	n.must(err)
}

// volume is one of this node, not made yet.
func (n *node) volume(name string, source corev1.PersistentVolumeSource) *corev1.PersistentVolume {
	hostname := corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
		{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{n.name}}}}
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeSpec{Capacity: storage(), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			StorageClassName: name, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain, PersistentVolumeSource: source,
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{hostname}}}},
	}
}

func storage() corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
}

func claimOf(class string) corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: storage()}}
}

func (n *node) claim(name, class string) {
	n.Helper()
	_, err := client.PersistentVolumeClaims.Create(n.Context(), n.admin, n.claimFor(name, class))
	n.must(err)
}

func (n *node) claimFor(name, class string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: n.ns, Name: name}, Spec: claimOf(class)}
}

// with gives a pod's container a volume.
func with(p *corev1.Pod, source corev1.VolumeSource, mount corev1.VolumeMount) *corev1.Pod {
	mount.Name = fmt.Sprintf("v%d", len(p.Spec.Volumes))
	p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: mount.Name, VolumeSource: source})
	p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, mount)
	return p
}

func claimed(name string, readOnly bool) corev1.VolumeSource {
	return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name, ReadOnly: readOnly}}
}

// What a pod writes to a claim, the next one reads; a claim that is not bound is
// waited for; and what is on the disks outlives the pods.
func TestClaims(t *testing.T) {
	n := newNode(t, nil)
	paths := map[string]string{"claims-local": n.disk("local"), "claims-host": n.disk("host")}
	n.persistent("claims-local", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: paths["claims-local"]}})
	n.persistent("claims-host", corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: paths["claims-host"]}})
	for class := range paths {
		// The claim comes only when the pod has asked for it in vain.
		n.create(with(n.pod(class, "write", "/data/file", class), claimed(class, false), corev1.VolumeMount{MountPath: "/data"}))
		n.await(class, "waits for its claim", func(*corev1.Pod) bool {
			return strings.Contains(n.events(class), `FailedMount: Unable to attach or mount volumes: unmounted volumes=[v0], unattached volumes=[], failed to process volumes=[v0]: error processing PVC `+n.ns+"/"+class)
		})
		n.claim(class, class)
		p := n.phase(class, corev1.PodSucceeded)
		n.delete(class)
		until(n, "the first pod is gone", func() bool { return n.gone(class) })
		until(n, "its mounts are gone", func() bool {
			_, err := os.Stat(filepath.Join(n.dir, "pods", string(p.UID)))
			return os.IsNotExist(err)
		})
		out, _ := n.run(with(n.pod(class+"-reads", "cat", "/data/file"), claimed(class, true), corev1.VolumeMount{MountPath: "/data"}))
		if out != class+"\n" {
			t.Errorf("the next pod on %s reads %q", class, out)
		}
		if _, p := n.run(with(n.pod(class+"-writes", "write", "/data/file", "no"), claimed(class, true), corev1.VolumeMount{MountPath: "/data"})); p.Status.Phase != corev1.PodFailed {
			t.Errorf("a pod wrote to its read-only claim on %s", class)
		}
		if b, err := os.ReadFile(filepath.Join(paths[class], "file")); err != nil || string(b) != class {
			t.Errorf("on the disk of %s: %q, %v", class, b, err)
		}
	}
}

// A pod's claim of its own is made, used and removed with it; an agent that is
// restarted leaves the mount alone.
func TestEphemeralClaim(t *testing.T) {
	n := newNode(t, nil)
	disk := n.disk("scratch")
	n.persistent("ephemeral-scratch", corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: disk}})
	n.create(with(n.pod("scratches"), corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{
		VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{Spec: claimOf("ephemeral-scratch")}}},
		corev1.VolumeMount{MountPath: "/data", SubPathExpr: "deep/part"}))
	n.ready("scratches")
	n.exec("scratches", "c", "/intruder", "write", "/data/file", "here")
	if b, err := os.ReadFile(filepath.Join(disk, "deep/part/file")); err != nil || string(b) != "here" {
		t.Errorf("on the disk: %q, %v", b, err)
	}
	id := statuses(n.get("scratches"))["c"].ContainerID
	n.close()
	n.open()
	n.start()
	// The pod's labels are seen by the new agent once it looks after the pod again.
	patch := []byte(`{"metadata":{"labels":{"seen":"again"}}}`)
	_, err := client.Pods.Patch(n.Context(), n.admin, target.Of(client.Pods.GroupVersionResource, n.ns).Object("scratches"), client.Patch{Type: types.MergePatchType, Data: patch})
	n.must(err)
	if now := statuses(n.ready("scratches"))["c"]; now.ContainerID != id || n.exec("scratches", "c", "/intruder", "cat", "/data/file") != "here" {
		t.Errorf("the agent's restart touched the pod: %+v", now)
	}
	n.delete("scratches")
	until(n, "the pod is gone", func() bool { return n.gone("scratches") })
	until(n, "its claim is gone", func() bool {
		_, err := client.PersistentVolumeClaims.Get(n.Context(), n.admin, n.ns, "scratches-v0")
		return err != nil
	})
	if b, err := os.ReadFile(filepath.Join(disk, "deep/part/file")); err != nil || string(b) != "here" {
		t.Errorf("after the pod, on the disk: %q, %v", b, err)
	}
}

// An image's files, and a part of them that two layers share.
func TestImageVolume(t *testing.T) {
	n := newNode(t, nil)
	dir := func(name string) file {
		return file{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}}
	}
	text := func(name, body string) file {
		return file{Header: tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, body: []byte(body)}
	}
	const content = "test.local/content:1"
	n.must(n.addImage(content, layer(dir("part/"), text("part/below", "from below"), text("part/both", "hidden")), layer(dir("part/"), text("part/both", "from above"))))
	source := func(ref string) corev1.VolumeSource {
		return corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: ref, PullPolicy: corev1.PullNever}}
	}
	p := with(n.pod("mounts"), source(content), corev1.VolumeMount{MountPath: "/whole"})
	n.create(with(p, source(content), corev1.VolumeMount{MountPath: "/part", SubPath: "part"}))
	n.ready("mounts")
	for path, want := range map[string]string{"/whole/part/below": "from below", "/part/below": "from below", "/part/both": "from above"} {
		if got := n.exec("mounts", "c", "/intruder", "cat", path); got != want {
			t.Errorf("%s: %q", path, got)
		}
	}
	until(t, "an event tells of the image", func() bool {
		return strings.Contains(n.events("mounts"), fmt.Sprintf("Pulled: Container image %q already present on machine", content))
	})
	if _, p := n.run(with(n.pod("writes", "write", "/whole/x", "x"), source(content), corev1.VolumeMount{MountPath: "/whole"})); p.Status.Phase != corev1.PodFailed {
		t.Error("an image was written to")
	}
	n.create(with(n.pod("absent"), source("test.local/none:1"), corev1.VolumeMount{MountPath: "/whole"}))
	n.await("absent", "is told that there is no such image", func(p *corev1.Pod) bool {
		w := statuses(p)["c"].State.Waiting
		return w != nil && w.Reason == "ErrImageNeverPull" && strings.Contains(w.Message, "test.local/none:1")
	})
	n.create(with(n.pod("astray"), source(content), corev1.VolumeMount{MountPath: "/part", SubPath: "nowhere"}))
	n.await("astray", "is told that there is no such part", func(p *corev1.Pod) bool {
		w := statuses(p)["c"].State.Waiting
		return w != nil && w.Reason == "CreateContainerError" && strings.Contains(w.Message, `"nowhere" does not exist`)
	})
}

// A claim of the built-in class has a directory of the node that every user may
// write to. It goes with the claim, when no pod has it any more, whatever is in it;
// and the volume's object goes after it.
func TestLocalPath(t *testing.T) {
	n := newNode(t, anyone)
	class := localpath.ClassName
	until(n, "the node is there", func() bool {
		_, err := client.Nodes.Get(n.Context(), n.admin, "", n.name)
		return err == nil
	})
	made := func(name string) string {
		n.Helper()
		n.claim(name, class)
		c, err := client.PersistentVolumeClaims.Get(n.Context(), n.admin, n.ns, name)
		n.must(err)
		n.note(c, "volume.kubernetes.io/selected-node", n.name) // there is no scheduler
		return "pvc-" + string(c.UID)
	}
	name := made("data")
	dir := filepath.Join(n.dir, "claims", name)
	user := with(n.pod("writes", "write", "/data/file", "here"), claimed("data", false), corev1.VolumeMount{MountPath: "/data"})
	defer func() {
		if n.Failed() {
			n.Log(n.events("data"))
		}
	}()
	user.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(4711))}
	if out, p := n.run(user); p.Status.Phase != corev1.PodSucceeded {
		t.Fatalf("%s: %s", p.Status.Phase, out)
	}
	n.create(with(n.pod("keeps"), claimed("data", false), corev1.VolumeMount{MountPath: "/data"}))
	n.ready("keeps")
	if got := n.exec("keeps", "c", "/intruder", "cat", "/data/file"); got != "here" {
		t.Errorf("the next pod reads %q", got)
	}
	for path, want := range map[string]string{
		"/metrics":       fmt.Sprintf("\nkubelet_volume_stats_used_bytes{namespace=%q,persistentvolumeclaim=\"data\"} ", n.ns),
		"/stats/summary": fmt.Sprintf(`"pvcRef":{"name":"data","namespace":%q}`, n.ns),
	} {
		if got := n.ask(path); !strings.Contains(got, want) {
			t.Errorf("%s has no %s:\n%s", path, want, got)
		}
	}
	n.must(os.Symlink("/", filepath.Join(dir, "link")))
	n.must(client.PersistentVolumeClaims.Delete(n.Context(), n.admin, n.ns, "data", metav1.DeleteOptions{}))
	n.delete("writes")
	until(n, "the first pod is gone", func() bool { return n.gone("writes") })
	if got := n.exec("keeps", "c", "/intruder", "cat", "/data/file"); got != "here" {
		t.Errorf("of a claim that is to go, a pod that has it reads %q", got)
	}
	n.delete("keeps")
	until(n, "the volume is gone", func() bool {
		_, err := client.PersistentVolumes.Get(n.Context(), n.admin, "", name)
		return apierrors.IsNotFound(err)
	})
	if _, err := os.Lstat(dir); !os.IsNotExist(err) {
		t.Errorf("the volume is gone, its directory: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(dir)); err != nil || len(left) > 0 {
		t.Errorf("left of it: %v, %v", left, err)
	}
}

// note writes an annotation of a claim.
func (n *node) note(c *corev1.PersistentVolumeClaim, key, value string) {
	n.Helper()
	at := target.Of(client.PersistentVolumeClaims.GroupVersionResource, c.Namespace).Object(c.Name)
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, key, value)
	_, err := client.PersistentVolumeClaims.Patch(n.Context(), n.admin, at, client.Patch{Type: types.MergePatchType, Data: []byte(patch)})
	n.must(err)
}
