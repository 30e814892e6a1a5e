package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
)

func TestVolumesFollowTheirObjects(t *testing.T) {
	tell(t, "live_update", func(s *story) {
		vol := corev1.Volume{Name: "cfg", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
			LocalObjectReference: corev1.LocalObjectReference{Name: "settings"},
		}}}
		p := pod("reads", container("app", "app"))
		p.Spec.Volumes = []corev1.Volume{vol}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cfg", MountPath: "/cfg"}}
		s.create(p)
		s.pass(5 * time.Second)
		cm := &corev1.ConfigMap{Data: map[string]string{"color": "blue"}}
		cm.Name, cm.Namespace = "settings", "default"
		s.say("> create configmap settings")
		made, err := client.ConfigMaps.Create(s.ctx, s.api, cm)
		if err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		host := ""
		for _, m := range s.engine.Container("reads", "app").GetMounts() {
			if m.GetContainerPath() == "/cfg" {
				host = m.GetHostPath()
			}
		}
		show := func() {
			data, err := os.ReadFile(filepath.Join(host, "color"))
			s.say("/cfg/color is %q (%v)", data, err)
		}
		show()
		made = made.DeepCopy()
		made.Data["color"] = "green"
		s.say("> change it")
		if _, err := client.ConfigMaps.Update(s.ctx, s.api, made); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Second)
		show()
	})
}

func TestEphemeralContainerRunsOnce(t *testing.T) {
	tell(t, "ephemeral", func(s *story) {
		s.engine.Images["look"] = agenttest.Exit(3*time.Second, 0)
		p := pod("sick", container("app", "app"))
		p.Spec.Volumes = []corev1.Volume{
			{Name: "work", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "missing", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "no"}}},
		}
		s.create(p)
		s.pass(time.Second)
		next := s.get("sick").DeepCopy()
		debug := corev1.EphemeralContainer{TargetContainerName: "app"}
		debug.Name, debug.Image, debug.ImagePullPolicy = "debug", "look", corev1.PullIfNotPresent
		debug.VolumeMounts = []corev1.VolumeMount{{Name: "work", MountPath: "/work"}}
		next.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}
		s.say("> debug it")
		if _, err := client.Pods.Update(s.ctx, s.api, next); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.say("joins the processes of %s", s.engine.Container("sick", "debug").GetLinux().GetSecurityContext().GetNamespaceOptions().GetTargetId())
		host := ""
		for _, m := range s.engine.Container("sick", "debug").GetMounts() {
			if m.GetContainerPath() == "/work" {
				host, _ = filepath.Rel(filepath.Join(s.dir, "pods", string(next.UID)), m.GetHostPath())
			}
		}
		s.say("sees at /work what is in the pod's %s", host)
	})
}

func TestTerminationMessage(t *testing.T) {
	dir := t.TempDir()
	file, log, link := filepath.Join(dir, "message"), filepath.Join(dir, "0.log"), filepath.Join(dir, "link")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, strings.Repeat("x", maxMessage+10))
	write(log, "2026-01-01T00:00:01Z stdout F first\n2026-01-01T00:00:02Z stderr P la\n2026-01-01T00:00:02Z stderr F st\n")
	if err := os.Symlink("/etc/passwd", link); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	write(empty, "")
	for name, c := range map[string]struct {
		c    actual.Container
		want string
	}{
		"the file, cut":             {actual.Container{TerminationFile: file}, strings.Repeat("x", maxMessage)},
		"no file":                   {actual.Container{TerminationFile: file + "no"}, ""},
		"nothing said":              {actual.Container{TerminationFile: empty, LogPath: log, ExitCode: 1}, ""},
		"the log's end":             {actual.Container{TerminationFile: empty, LogPath: log, ExitCode: 1, FallbackToLogs: true}, "first\nlast\n"},
		"the log of one that is ok": {actual.Container{TerminationFile: empty, LogPath: log, FallbackToLogs: true}, ""},
	} {
		if got := terminationMessage(&c.c); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := terminationMessage(&actual.Container{TerminationFile: link}); strings.Contains(got, "root:") {
		t.Error("a link out of the container was followed")
	}
}
