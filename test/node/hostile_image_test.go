package node_test

import (
	"archive/tar"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// Images that were made to reach the host when they are unpacked, when a container
// is made of them, or when it runs: refused with a reason, or contained.
func TestHostileImages(t *testing.T) {
	n := newNode(t, nil)
	c := newCanary(n)
	images := hostileImages(n, c)
	n.create(n.pod("neighbour"))
	i, ran := 0, map[string]string{}
	for name, img := range images {
		i++
		ref := fmt.Sprintf("test.local/hostile-%d:1", i)
		tars := [][]byte{program()}
		for _, l := range img.layers {
			tars = append(tars, layer(l...))
		}
		if err := n.addImage(ref, tars...); err != nil {
			t.Logf("%s: refused: %v", name, err)
			continue
		}
		p := n.pod(fmt.Sprintf("hostile-%d", i), img.args...)
		if len(img.args) == 0 {
			p.Spec.Containers[0].Args = []string{"cat", "/out/secret"}
		}
		p.Spec.Containers[0].Image = ref
		if img.change != nil {
			img.change(p)
		}
		n.create(p)
		ran[p.Name] = name
	}
	for pod, name := range ran {
		n.await(pod, "ends or says why it can't begin", func(p *corev1.Pod) bool {
			s := statuses(p)["c"]
			return s.State.Terminated != nil || (s.State.Waiting != nil && strings.HasSuffix(s.State.Waiting.Reason, "Error") && s.State.Waiting.Message != "")
		})
		p := n.get(pod)
		if out := n.output(p, "c"); strings.Contains(out, c.secret) || strings.Contains(out, "SUCCEEDED") {
			t.Errorf("%s has read what it should not: %s", name, out)
		}
	}
	c.check(t)
	if p := n.ready("neighbour"); p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the neighbour: %+v", p.Status.ContainerStatuses)
	}
}

// hostile is an image, and what a pod of it does.
type hostile struct {
	layers [][]file
	args   []string
	change func(*corev1.Pod)
}

func hostileImages(n *node, c *canary) map[string]hostile {
	n.Helper()
	up := strings.Repeat("../", 40)
	entry := func(kind byte, name, link, body string) file {
		return file{Header: tar.Header{Typeflag: kind, Name: name, Linkname: link, Mode: 0o755}, body: []byte(body)}
	}
	dir, plain, link, hard := byte(tar.TypeDir), byte(tar.TypeReg), byte(tar.TypeSymlink), byte(tar.TypeLink)
	var st unix.Stat_t
	n.must(unix.Stat(home, &st))
	block := entry(tar.TypeBlock, "disk", "", "")
	block.Devmajor, block.Devminor, block.Mode = int64(unix.Major(st.Dev)), int64(unix.Minor(st.Dev)), 0o666
	device := entry(tar.TypeChar, "mem", "", "")
	device.Devmajor, device.Devminor, device.Mode = 1, 1, 0o666
	images := map[string]hostile{
		"climbs":         {layers: [][]file{{entry(plain, up+c.dir+"/planted", "", "x")}}},
		"absolute":       {layers: [][]file{{entry(plain, c.dir+"/planted", "", "x")}}},
		"through a link": {layers: [][]file{{entry(link, "out", c.dir, ""), entry(plain, "out/planted", "", "x")}}, args: []string{"cat", "/out/secret"}},
		// What one layer makes a link the next one writes through, whites out, replaces.
		"link between layers":    {layers: [][]file{{entry(link, "out", c.dir, "")}, {entry(plain, "out/planted", "", "x")}}, args: []string{"cat", "/out/secret"}},
		"climbing link":          {layers: [][]file{{entry(link, "out", up+c.dir, "")}, {entry(dir, "out/deep", "", ""), entry(plain, "out/deep/planted", "", "x")}}, args: []string{"cat", "/out/secret"}},
		"white-out between":      {layers: [][]file{{entry(link, "out", c.dir, "")}, {entry(plain, "out/.wh.secret", "", "")}}},
		"opaque between":         {layers: [][]file{{entry(link, "out", c.dir, "")}, {entry(plain, "out/.wh..wh..opq", "", "")}}},
		"white-out that climbs":  {layers: [][]file{{entry(plain, ".wh."+strings.ReplaceAll(up, "/", "%2f"), "", ""), entry(plain, up+c.dir+"/.wh.secret", "", "")}}},
		"hard link out":          {layers: [][]file{{entry(hard, "stolen", c.file, "")}}, args: []string{"cat", "/stolen"}},
		"hard link that climbs":  {layers: [][]file{{entry(hard, "stolen", up+c.file, "")}}, args: []string{"cat", "/stolen"}},
		"hard link through link": {layers: [][]file{{entry(link, "out", c.dir, "")}, {entry(hard, "stolen", "out/secret", "")}}, args: []string{"cat", "/stolen"}},
		"link replaced by dir":   {layers: [][]file{{entry(link, "out", c.dir, "")}, {entry(dir, "out", "", ""), entry(plain, "out/planted", "", "x")}}},
		"block device":           {layers: [][]file{{block}}, args: []string{"cat", "/disk"}},
		"memory":                 {layers: [][]file{{device}}, args: []string{"cat", "/mem"}},
	}
	for _, at := range []string{"dev", "proc", "sys", "etc", "tmp", "run", "var"} {
		one := images["through a link"]
		one.layers, one.args = [][]file{{entry(link, at, c.dir, "")}}, []string{"write", "/" + at + "/planted", "x"}
		one.change = func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/" + at + "/volume"}}
		}
		images[at+" is a link"] = one
	}
	for fd := 3; fd < 12; fd += 2 { // CVE-2024-21626
		one := images["climbs"]
		one.layers, one.args = [][]file{{}}, []string{"climb", c.file}
		one.change = func(p *corev1.Pod) { p.Spec.Containers[0].WorkingDir = fmt.Sprintf("/proc/self/fd/%d", fd) }
		images[fmt.Sprintf("directory %d", fd)] = one
	}
	return images
}
