package cli

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// seen is a pod of a command line, with a status.
func seen(t *testing.T, state corev1.ContainerState, line ...string) *corev1.Pod {
	t.Helper()
	pod, err := meant(line...)
	if err != nil {
		t.Fatal(err)
	}
	pod.UID = "4711"
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.42.0.7"}, {IP: "fd00::7"}},
		ContainerStatuses: []corev1.ContainerStatus{{Name: pod.Name, State: state, RestartCount: 2, ContainerID: "sampan://abc"}}}
	if state.Terminated != nil {
		pod.Status.Phase = corev1.PodFailed
	}
	return pod
}

// A container is shown in docker's words, and its pod in its own, to templates of both.
func TestInspectContainer(t *testing.T) {
	runs := corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1e9, 0)}}
	web := seen(t, runs, "--name", "web", "-d", "-p", "127.0.0.1:8080:80", "-v", "data:/d", "-v", "/srv:/s:ro", "--tmpfs", "/t", "-e", "A=1$$x", "-m", "64m", "--cpus", "1.5",
		"--restart", "on-failure:3", "--entrypoint", "sh", "-l", "tier=front", "app", "-c", "x")
	still := seen(t, runs, "--name", "still", "-d", "app")
	still.Annotations[pausedAnnotation] = "sampan://abc"
	dead := seen(t, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: "OOMKilled", FinishedAt: metav1.Unix(1e9+5, 0)}}, "--name", "dead", "--network", "none", "app")
	for _, test := range []struct {
		pod          *corev1.Pod
		format, want string
	}{
		{web, `{{.Name}} {{.Id}} {{.State.Status}} {{.State.Running}} {{.State.StartedAt}} {{.RestartCount}}`, "/web 4711 running true 2001-09-09T01:46:40Z 2"},
		{web, `{{.NetworkSettings.IPAddress}} {{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}} {{.HostConfig.NetworkMode}}`, "10.42.0.7 8080 bridge"},
		{web, `{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}} {{json .Config.Env}} {{.Path}} {{json .Args}}`, `10.42.0.7 ["A=1$$x"] sh ["-c","x"]`},
		{web, `{{range .Mounts}}{{.Type}}:{{.Name}}:{{.Destination}}:{{.RW}} {{end}}`, "volume:data:/d:true bind::/s:false tmpfs::/t:true"},
		{web, `{{json .HostConfig.Binds}}`, `["data:/d:rw","/srv:/s:ro"]`},
		{web, `{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} {{.HostConfig.RestartPolicy.Name}}:{{.HostConfig.RestartPolicy.MaximumRetryCount}}`, "67108864 1500000000 on-failure:3"},
		{web, `{{.Config.Labels.tier}} {{json .Config.ExposedPorts}} {{.metadata.name}} {{.spec.restartPolicy}} {{.status.phase}}`, `front {"80/tcp":{}} web OnFailure Running`},
		{still, `{{.State.Status}} {{.State.Paused}} {{.State.Running}}`, "paused true true"},
		{dead, `{{.State.Status}} {{.State.ExitCode}} {{.State.OOMKilled}} {{.HostConfig.NetworkMode}} {{.State.FinishedAt}}`, "exited 137 true none 2001-09-09T01:46:45Z"},
	} {
		var out strings.Builder
		if err := inspectWith(&out, test.format, viewOf(test.pod, time.Unix(1e9+9, 0))); err != nil || strings.TrimSpace(out.String()) != test.want {
			t.Errorf("%s: %s, %v; want %s", test.format, out.String(), err, test.want)
		}
	}
	raw, err := json.Marshal(viewOf(web, time.Now()))
	if err != nil || !strings.Contains(string(raw), `"kind":"Pod"`) {
		t.Errorf("no pod: %s, %v", raw, err)
	}
}

// What one container has of the machine another can have too; what goes with it can't.
func TestVolumesFrom(t *testing.T) {
	from := seen(t, corev1.ContainerState{}, "--name", "from", "-v", "data:/d", "-v", "/srv:/s:ro", "app")
	to := seen(t, corev1.ContainerState{}, "--name", "to", "-v", "/own:/s", "app")
	if err := lend(to, from, true); err != nil {
		t.Fatal(err)
	}
	mounts := to.Spec.Containers[0].VolumeMounts
	if len(mounts) != 2 || mounts[0].MountPath != "/s" || mounts[0].ReadOnly || mounts[1].MountPath != "/d" || !mounts[1].ReadOnly || to.Spec.Volumes[1].HostPath.Path != "/volumes/data" {
		t.Errorf("%+v of %+v", mounts, to.Spec.Volumes)
	}
	from = seen(t, corev1.ContainerState{}, "--name", "from", "-v", "/e", "app")
	if err := lend(to, from, false); err == nil || !strings.Contains(err.Error(), "-v NAME:/e") {
		t.Error(err)
	}
	users := volumeUsers([]*corev1.Pod{to, from}, "/volumes")
	if len(users) != 1 || len(users["data"]) != 1 || users["data"][0] != "to" {
		t.Errorf("users %v", users)
	}
}

// A change of what a container may use leaves what it asked for alone.
func TestResizePatch(t *testing.T) {
	pod := seen(t, corev1.ContainerState{}, "--name", "web", "-m", "1g", "--memory-reservation", "512m", "--cpus", "2", "app")
	want, err := meant("-m", "2g", "--cpus", "1", "app")
	if err != nil {
		t.Fatal(err)
	}
	got, err := resizePatch(pod, want.Spec.Containers[0].Resources)
	if s := string(got); err != nil || s != `{"spec":{"containers":[{"name":"web","resources":{"limits":{"cpu":"1","memory":"2Gi"},"requests":{"cpu":"0","memory":"512Mi"}}}]}}` {
		t.Errorf("%s, %v", s, err)
	}
}

// A network has the pods that say so, and a pod that says nothing is on bridge.
func TestNetworks(t *testing.T) {
	one := seen(t, corev1.ContainerState{}, "--name", "one", "--network", "mine", "--network", "bridge", "app")
	two := seen(t, corev1.ContainerState{}, "--name", "two", "--network", "name=other,alias=db", "app")
	made := networkService("default", "mine", map[string]string{internalAnnotation: "true"})
	one.Status.PodIP = "10.42.0.7"
	plain := seen(t, corev1.ContainerState{}, "--name", "plain", "app")
	plain.UID = "4712"
	got := map[string]string{}
	for _, v := range networksOf([]*corev1.Service{made, networkService("default", "bridge", nil)}, []*corev1.Pod{one, two, plain}) {
		for _, id := range slices.Sorted(maps.Keys(v.Containers)) {
			got[v.Name] += v.Containers[id].Name + " "
		}
		if v.Internal != (v.Name == "mine") {
			t.Errorf("%s: internal is %v", v.Name, v.Internal)
		}
	}
	if want := map[string]string{"mine": "one ", "bridge": "one plain "}; !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// What network connect and disconnect make of a pod's labels.
func TestConnected(t *testing.T) {
	on := func(names ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{}}}
		for _, name := range names {
			p.Labels[memberPrefix+name] = isMember
		}
		return p
	}
	for _, c := range []struct {
		name, net string
		pod       *corev1.Pod
		connect   bool
		want      string
	}{
		{"one of the bridge stays there", "a", on(), true, "a bridge"},
		{"one more", "b", on("a"), true, "a b"},
		{"twice", "a", on("a"), true, "p is on network \"a\" already"},
		{"back to the bridge", "bridge", on("a"), true, "a bridge"},
		{"from nowhere", "a", on("none"), true, "a"},
		{"host", "host", on(), true, "from its start or never"},
		{"off one of two", "a", on("a", "b"), false, "b"},
		{"off the last", "a", on("a"), false, "none"},
		{"off the bridge", "bridge", on(), false, "none"},
		{"off another", "b", on("a"), false, "p is not on network \"b\", but on a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			do := disconnected
			if c.connect {
				do = connected
			}
			patch, err := do(c.pod, c.net)
			if err != nil {
				if !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			for label, value := range patch {
				if delete(c.pod.Labels, label); value != nil {
					c.pod.Labels[label] = *value
				}
			}
			if got := strings.Join(networksOfPod(c.pod), " "); got != c.want {
				t.Errorf("on %s, want %s", got, c.want)
			}
		})
	}
}

// Names that were made up are told from those that somebody has given.
func TestAnonymous(t *testing.T) {
	name := anonymousName()
	if !anonymous(name) || name == anonymousName() || !volumeName(name) || anonymous("data") || anonymous(name[1:]) || anonymous("x"+name[1:]) {
		t.Errorf("%q", name)
	}
}
