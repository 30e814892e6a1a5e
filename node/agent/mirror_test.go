package agent

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/agenttest"
	"github.com/sampan-dev/sampan/node/agent/static"
)

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: etcd, labels: {app: IMAGE}}
spec:
  terminationGracePeriodSeconds: 5
  restartPolicy: Always
  containers: [{name: main, image: IMAGE, imagePullPolicy: IfNotPresent}]
`

func (s *story) manifest(image string) {
	s.t.Helper()
	path := filepath.Join(s.kubelet.StaticPodPath, "etcd.yaml")
	if image == "" {
		s.say("> remove the manifest")
		if err := os.Remove(path); err != nil {
			s.t.Fatal(err)
		}
		return
	}
	s.say("> write a manifest with image %s", image)
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(manifest, "IMAGE", image)), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// restart ends the agent and starts another.
func (s *story) restart() {
	s.stopAgent()
	s.startAgent()
}

// static starts the agent anew with a directory of manifests.
func (s *story) static() {
	s.stopAgent()
	s.kubelet.StaticPodPath = filepath.Join(s.dir, "manifests")
	if err := os.MkdirAll(s.kubelet.StaticPodPath, 0o755); err != nil {
		s.t.Fatal(err)
	}
	s.startAgent()
}

func TestStaticPod(t *testing.T) {
	tell(t, "static", func(s *story) {
		s.static()
		s.manifest("app")
		s.pass(30 * time.Second)
		first := s.get("etcd-n1")
		if first.Annotations[static.AnnotationMirror] != first.Annotations[static.AnnotationHash] || first.UID == "" ||
			len(first.OwnerReferences) != 1 || first.OwnerReferences[0].Kind != "Node" || first.Spec.NodeName != "n1" {
			t.Errorf("the mirror is %+v", first.ObjectMeta)
		}
		if first.Status.ObservedGeneration != 0 || first.Status.StartTime == nil {
			t.Errorf("the mirror's status is %+v", first.Status)
		}
		s.say("> somebody deletes the mirror; running: %s", s.running())
		if err := client.Pods.Delete(s.ctx, s.api, "default", "etcd-n1", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		s.pass(30 * time.Second)
		second := s.get("etcd-n1")
		s.say("another mirror: %t, same container: %t", second.UID != first.UID,
			second.Status.ContainerStatuses[0].ContainerID == first.Status.ContainerStatuses[0].ContainerID)
		s.say("> the agent restarts")
		s.restart()
		s.pass(30 * time.Second)
		s.say("started when it had been: %t", s.get("etcd-n1").Status.StartTime.Equal(second.Status.StartTime))
		s.engine.Do(func() { s.engine.Images["other"] = s.engine.Images["app"] })
		s.manifest("other")
		s.pass(time.Minute)
		s.say("mirror's image: %s", s.get("etcd-n1").Spec.Containers[0].Image)
		s.manifest("")
		s.pass(time.Minute)
		s.clean()
	})
}

// TestStaticPodStaysReady: what the mirror says of the probes holds for an agent that
// has been restarted, which asks them anew; until then nobody sees the pod unready.
func TestStaticPodStaysReady(t *testing.T) {
	tell(t, "static_ready", func(s *story) {
		s.static()
		const asked = "main, image: IMAGE, imagePullPolicy: IfNotPresent"
		probes := ""
		for _, kind := range []string{"startup", "readiness", "liveness"} {
			probes += ",\n    " + kind + "Probe: {exec: {command: [x]}, initialDelaySeconds: 3, periodSeconds: 5}"
		}
		text := strings.ReplaceAll(strings.Replace(manifest, asked, asked+probes, 1), "IMAGE", "app")
		s.say("> write a manifest with probes")
		if err := os.WriteFile(filepath.Join(s.kubelet.StaticPodPath, "etcd.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		s.say("> the agent restarts; probes take a while")
		s.engine.Do(func() {
			s.engine.Answer = func(string, []string) (int32, string) {
				time.Sleep(time.Second / 2)
				return 0, ""
			}
		})
		s.restart()
		s.pass(time.Minute)
		s.say("running: %s", s.running())
		s.engine.Crash("etcd-n1", "main", 1)
		s.pass(time.Minute)
	})
}

// TestPodThatClaimsToBeStatic: where a pod comes from isn't its author's to say.
func TestPodThatClaimsToBeStatic(t *testing.T) {
	tell(t, "static_claimed", func(s *story) {
		for name, selector := range map[string]map[string]string{"web": nil, "elsewhere": {"disk": "ssd"}} {
			p := pod(name, container("app", "app"))
			p.Annotations, p.Spec.NodeSelector = map[string]string{static.AnnotationSource: "file"}, selector
			s.create(p)
		}
		s.pass(time.Minute)
		s.say("> the agent restarts")
		s.restart()
		s.pass(time.Minute)
		s.say("running: %s; web is still from a %s, as its author says", s.running(), s.get("web").Annotations[static.AnnotationSource])
		s.delete("web")
		s.delete("elsewhere")
		s.pass(time.Minute)
	})
}

// TestStaticPodWithoutServer: it runs before there is an API server, and is
// shown when there is one; the API's pods wait.
func TestStaticPodWithoutServer(t *testing.T) {
	tell(t, "static_alone", func(s *story) {
		s.create(pod("web", container("app", "app")))
		s.pass(time.Second)
		s.stopAgent()
		s.api.down.Store(true)
		s.static()
		s.manifest("app")
		s.pass(time.Minute)
		s.say("running without a server: %s", s.running())
		s.say("> the server comes")
		s.api.down.Store(false)
		s.pass(time.Minute)
		s.say("running: %s; the mirror is %s", s.running(), s.get("etcd-n1").Status.Phase)
	})
}

// TestMirrorOfNothing: a mirror whose manifest went while no agent looked is
// removed, with its pod.
func TestMirrorOfNothing(t *testing.T) {
	tell(t, "static_orphan", func(s *story) {
		s.static()
		s.manifest("app")
		s.pass(30 * time.Second)
		s.stopAgent()
		s.manifest("")
		s.startAgent()
		s.pass(time.Minute)
		s.clean()
		list, _, err := client.Pods.List(s.ctx, s.api, "", metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(list); n != 0 {
			t.Errorf("%d pods are left", n)
		}
		synctest.Wait()
	})
}

// TestStaticPodComesBack: the manifest is there again before its pod has ended, and the
// pod, which has the very same UID, starts anew after its end.
func TestStaticPodComesBack(t *testing.T) {
	tell(t, "static_back", func(s *story) {
		s.engine.Do(func() { s.engine.Images["slow"] = agenttest.Stubborn })
		s.static()
		path := filepath.Join(s.kubelet.StaticPodPath, "etcd.yaml")
		text := strings.ReplaceAll(strings.ReplaceAll(manifest, "IMAGE", "slow"), "PeriodSeconds: 5", "PeriodSeconds: 50")
		write := func() {
			s.say("> write the manifest")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write()
		s.pass(30 * time.Second)
		s.manifest("")
		s.pass(30 * time.Second)
		write()
		s.pass(2 * time.Minute)
		s.say("running: %s", s.running())
		s.manifest("")
		s.pass(2 * time.Minute)
		s.clean()
	})
}

// TestStaticPodIsAwayForAMoment: the manifest went and is back before anybody has looked.
// The pod has ended all the same, and what runs then has been restarted.
func TestStaticPodIsAwayForAMoment(t *testing.T) {
	tell(t, "static_away", func(s *story) {
		s.static()
		s.manifest("app")
		s.pass(30 * time.Second)
		for range 2 {
			s.say("> the manifest is away for a moment; running: %s", s.running())
			now := slices.Collect(maps.Values(s.agent.statics.pods))
			s.agent.heedStatic(filesSource, nil)
			s.agent.heedStatic(filesSource, now)
			s.pass(30 * time.Second)
		}
		s.say("running: %s, restarted: %d", s.running(), s.get("etcd-n1").Status.ContainerStatuses[0].RestartCount)
	})
}
