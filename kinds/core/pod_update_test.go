package core

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

func TestPodUpdate(t *testing.T) {
	const base = `spec: {activeDeadlineSeconds: 10, nodeSelector: {a: b}, tolerations: [{key: k, operator: Exists}], containers: [{name: a, image: i}]`
	for _, c := range []struct{ name, was, now, want string }{
		{"image", base + `}`, strings.Replace(base, "image: i", "image: j", 1) + `}`, ""},
		{"sooner", base + `}`, strings.Replace(base, "Seconds: 10", "Seconds: 9", 1) + `}`, ""},
		{"later", base + `}`, strings.Replace(base, "Seconds: 10", "Seconds: 11", 1) + `}`,
			`spec.activeDeadlineSeconds: Invalid value: 11: must be less than or equal to previous value`},
		{"more tolerations", base + `}`, strings.Replace(base, "[{key: k,", "[{key: j, operator: Exists}, {key: k,", 1) + `}`, ""},
		{"fewer tolerations", base + `}`, strings.Replace(base, "{key: k, operator: Exists}", "", 1) + `}`,
			`spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds`},
		{"containers", base + `}`, strings.Replace(base, "image: i}]", "image: i}, {name: b, image: i}]", 1) + `}`, "*spec.containers: Forbidden: pod updates may not add or remove containers"},
		{"host", base + `}`, base + `, hostname: h}`, "*spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"},
		{"gate removed", base + `, schedulingGates: [{name: g}, {name: h}]}`, base + `, schedulingGates: [{name: h}]}`, ""},
		{"gate added", base + `}`, base + `, schedulingGates: [{name: h}]}`,
			`spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'`},
		{"gated selector grows", base + `, schedulingGates: [{name: g}]}`, strings.Replace(base, "{a: b}", "{a: b, c: d}", 1) + `, schedulingGates: [{name: g}]}`, ""},
		{"gated selector changes", base + `, schedulingGates: [{name: g}]}`, strings.Replace(base, "{a: b}", "{a: c}", 1) + `, schedulingGates: [{name: g}]}`,
			`*spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)`},
		{"selector of a free pod", base + `}`, strings.Replace(base, "{a: b}", "{a: b, c: d}", 1) + `}`, "*spec: Forbidden: pod updates may not change fields"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lines(validatePodUpdate(parsePod(t, c.now), parsePod(t, c.was)))
			prefix, partial := strings.CutPrefix(c.want, "*")
			if partial && !strings.HasPrefix(got, prefix) || !partial && got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestEphemeralContainersUpdate(t *testing.T) {
	without := `spec: {containers: [{name: a, image: i}]}`
	with := `spec: {containers: [{name: a, image: i}], ephemeralContainers: [{name: e, image: IMAGE}]}`
	one, other := strings.Replace(with, "IMAGE", "x", 1), strings.Replace(with, "IMAGE", "z", 1)
	for _, c := range []struct{ name, was, now, want string }{
		{"added", without, one, ""},
		{"removed", one, without, "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be removed\n"},
		{"changed", one, other, "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"e\" may not be changed\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lines(validateEphemeralContainersUpdate(parsePod(t, c.now), parsePod(t, c.was)))
			if c.want == "" && got != "" || !strings.HasPrefix(got, c.want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestPodResize(t *testing.T) {
	pod := func(resources string) string {
		return `spec: {containers: [{name: a, image: i, resources: ` + resources + `}]}`
	}
	for _, c := range []struct{ name, was, now, want string }{
		{"more cpu", pod(`{requests: {cpu: "1"}}`), pod(`{requests: {cpu: "2"}}`), ""},
		{"class", pod(`{requests: {cpu: "1"}}`), pod(`{limits: {cpu: "2", memory: 1Gi}}`), `spec: Invalid value: "Guaranteed": Pod QOS Class may not change as a result of resizing`},
		{"removed", pod(`{requests: {cpu: "1", memory: 1Gi}}`), pod(`{requests: {cpu: "2"}}`),
			`spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed`},
		{"disk", pod(`{requests: {cpu: "1", ephemeral-storage: 1Gi}}`), pod(`{requests: {cpu: "1", ephemeral-storage: 2Gi}}`),
			`spec: Forbidden: only cpu and memory resources are mutable`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := lines(validatePodResize(parsePod(t, c.now), parsePod(t, c.was))); got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
}

func TestResizeTakesOnlyResources(t *testing.T) {
	old := parsePod(t, `spec: {containers: [{name: a, image: i, resources: {requests: {cpu: "1"}}}]}`)
	body := parsePod(t, `spec: {hostname: h, containers: [{name: a, image: j, resources: {requests: {cpu: "2"}}}]}`)
	next := old.DeepCopy()
	if err := podResize().Copy(next, body); err != nil {
		t.Fatal(err)
	}
	if cpu := next.Spec.Containers[0].Resources.Requests.Cpu().String(); cpu != "2" {
		t.Errorf("cpu is %s, want 2", cpu)
	}
	if next.Spec.Containers[0].Image != "i" || next.Spec.Hostname != "" {
		t.Error("resize changed something else")
	}
	if next.Generation != old.Generation+1 {
		t.Errorf("generation is %d, want %d", next.Generation, old.Generation+1)
	}
}

func TestPodStatusUpdate(t *testing.T) {
	running := `{spec: {restartPolicy: POLICY, containers: [{name: a, image: i}]}, status: {phase: Running, qosClass: BestEffort, containerStatuses: [{name: a, state: {running: {}}}]}}`
	load := func(text string) *corev1.Pod {
		p := parsePod(t, text)
		p.Status = corev1.PodStatus{QOSClass: p.Status.QOSClass}
		return p
	}
	withState := func(policy string, state corev1.ContainerState) *corev1.Pod {
		p := load(strings.Replace(running, "POLICY", policy, 1))
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: state}}
		return p
	}
	exited := func(code int32) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code}}
	}
	alive := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	const dead = "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
	for _, c := range []struct {
		name, policy string
		code         int32
		want         string
	}{
		{"always", "Always", 0, ""}, {"never", "Never", 1, dead}, {"failed", "OnFailure", 1, ""}, {"succeeded", "OnFailure", 0, dead},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lines(validatePodStatusUpdate(withState(c.policy, alive), withState(c.policy, exited(c.code))))
			if got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
		})
	}
	t.Run("addresses", func(t *testing.T) {
		old := load(`spec: {containers: [{name: a, image: i}]}`)
		p := old.DeepCopy()
		p.Status.QOSClass = corev1.PodQOSGuaranteed
		p.Status.PodIP, p.Status.PodIPs = "10.0.0.1", []corev1.PodIP{{IP: "10.0.0.2"}, {IP: "10.0.0.3"}}
		want := `status.podIPs: Invalid value: [{"IP":"10.0.0.2"},{"IP":"10.0.0.3"}]: may specify no more than one IP for each IP family
status.podIPs[0].ip: Invalid value: "10.0.0.2": must be equal to ` + "`podIP`" + `
status.qosClass: Invalid value: "Guaranteed": field is immutable`
		if got := lines(validatePodStatusUpdate(p, old)); got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
	})
}

// A node that does not know a field must not wipe it out with its status.
func TestStatusCopyKeepsWhatTheWriterLeftOut(t *testing.T) {
	stored := parsePod(t, `{metadata: {ownerReferences: [{apiVersion: v1, kind: K, name: o, uid: u}]}, spec: {containers: [{name: a, image: i}]}}`)
	stored.Status.ObservedGeneration = 4
	stored.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, ObservedGeneration: 3}}
	body := stored.DeepCopy()
	body.OwnerReferences = nil
	body.Annotations = map[string]string{"a": "b"}
	body.Spec.Hostname = "other"
	body.Status = corev1.PodStatus{PodIP: "10.0.0.1", Conditions: []corev1.PodCondition{{Type: corev1.PodReady}}}
	next := stored.DeepCopy()
	if err := podStatus().Copy(next, runtime.Object(body)); err != nil {
		t.Fatal(err)
	}
	switch {
	case len(next.OwnerReferences) != 1:
		t.Error("owner references were lost")
	case next.Annotations["a"] != "b":
		t.Error("annotations were not taken over")
	case next.Spec.Hostname != "":
		t.Error("the spec was taken over")
	case next.Status.QOSClass != corev1.PodQOSBestEffort || next.Status.ObservedGeneration != 4 || next.Status.Conditions[0].ObservedGeneration != 3:
		t.Errorf("status lost something: %+v", next.Status)
	case len(next.Status.PodIPs) != 1:
		t.Error("podIPs was not filled from podIP")
	}
}

func TestPodGrace(t *testing.T) {
	seconds := func(n int64) *metav1.DeleteOptions { return &metav1.DeleteOptions{GracePeriodSeconds: &n} }
	for _, c := range []struct {
		name, node string
		phase      corev1.PodPhase
		opts       *metav1.DeleteOptions
		want       int64
	}{
		{"own", "n1", corev1.PodRunning, &metav1.DeleteOptions{}, 30},
		{"asked", "n1", corev1.PodRunning, seconds(7), 7},
		{"negative", "n1", corev1.PodRunning, seconds(-3), 1},
		{"pending", "", corev1.PodPending, nil, 0},
		{"ended", "n1", corev1.PodSucceeded, seconds(7), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parsePod(t, `spec: {containers: [{name: a, image: i}]}`)
			p.Spec.NodeName, p.Status.Phase = c.node, c.phase
			if got, ok := podGrace(p, c.opts); got != c.want || !ok {
				t.Errorf("grace is %d %v, want %d", got, ok, c.want)
			}
		})
	}
}

func TestPodDefaults(t *testing.T) {
	p := parsePod(t, `spec:
  hostNetwork: true
  serviceAccount: s
  volumes: [{name: v}, {name: s, secret: {secretName: x}}, {name: h, hostPath: {path: /}}, {name: i, iscsi: {targetPortal: t, iqn: iqn.2001-04.com.example:x, lun: 0}}]
  containers:
  - {name: a, image: i, ports: [{containerPort: 80}], resources: {limits: {cpu: 100m}}, livenessProbe: {httpGet: {port: 80}}, env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}
  - {name: b, image: "r:5000/i:v1"}
  - {name: c, image: i@sha256:x}`)
	a := p.Spec.Containers[0]
	for what, ok := range map[string]bool{
		"pull policy by tag":     a.ImagePullPolicy == "Always" && p.Spec.Containers[1].ImagePullPolicy == "IfNotPresent" && p.Spec.Containers[2].ImagePullPolicy == "IfNotPresent",
		"host port":              a.Ports[0].HostPort == 80 && a.Ports[0].Protocol == "TCP",
		"request":                a.Resources.Requests.Cpu().String() == "100m",
		"probe":                  a.LivenessProbe.PeriodSeconds == 10 && a.LivenessProbe.HTTPGet.Path == "/" && *a.LivenessProbe.HTTPGet.Protocol == "HTTP1",
		"field version":          a.Env[0].ValueFrom.FieldRef.APIVersion == "v1",
		"termination message":    a.TerminationMessagePath == "/dev/termination-log" && a.TerminationMessagePolicy == "File",
		"account":                p.Spec.ServiceAccountName == "s",
		"service links":          *p.Spec.EnableServiceLinks,
		"grace":                  *p.Spec.TerminationGracePeriodSeconds == 30,
		"scheduler":              p.Spec.SchedulerName == "default-scheduler",
		"security context":       p.Spec.SecurityContext != nil,
		"volumes":                p.Spec.Volumes[0].EmptyDir != nil && *p.Spec.Volumes[1].Secret.DefaultMode == 0o644 && *p.Spec.Volumes[2].HostPath.Type == "" && p.Spec.Volumes[3].ISCSI.ISCSIInterface == "default",
		"class":                  p.Status.QOSClass == corev1.PodQOSBurstable,
		"phase":                  p.Status.Phase == corev1.PodPending,
		"nothing left undecided": p.Spec.DNSPolicy == "ClusterFirst" && p.Spec.RestartPolicy == "Always",
	} {
		if !ok {
			t.Errorf("%s is not defaulted", what)
		}
	}
}

func TestQOSClass(t *testing.T) {
	for text, want := range map[string]corev1.PodQOSClass{
		`{}`:                                corev1.PodQOSBestEffort,
		`{limits: {cpu: "1", memory: 1Gi}}`: corev1.PodQOSGuaranteed,
		`{limits: {cpu: "1", memory: 1Gi}, requests: {cpu: 500m}}`: corev1.PodQOSBurstable,
		`{limits: {cpu: "1"}}`:         corev1.PodQOSBurstable,
		`{requests: {cpu: "1"}}`:       corev1.PodQOSBurstable,
		`{limits: {example.com/x: 1}}`: corev1.PodQOSBestEffort,
		`{limits: {cpu: "1", memory: 1Gi}, requests: {cpu: 1, memory: 1Gi}}`: corev1.PodQOSGuaranteed,
	} {
		if got := parsePod(t, `spec: {containers: [{name: a, image: i, resources: `+text+`}]}`).Status.QOSClass; got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
	two := parsePod(t, `spec: {containers: [{name: a, image: i, resources: {limits: {cpu: 1, memory: 1Gi}}}, {name: b, image: i}]}`)
	if two.Status.QOSClass != corev1.PodQOSBurstable {
		t.Errorf("one container without limits: %s", two.Status.QOSClass)
	}
}

func TestPodRow(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) metav1.Time { return metav1.NewTime(now.Add(-d)) }
	base := func() *corev1.Pod {
		p := parsePod(t, `spec: {nodeName: n1, containers: [{name: a, image: i}, {name: b, image: i}], initContainers: [{name: i, image: i}, {name: s, image: i, restartPolicy: Always}]}`)
		p.CreationTimestamp = ago(3 * time.Hour)
		return p
	}
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	yes := true
	for _, c := range []struct {
		name   string
		change func(p *corev1.Pod)
		want   [4]string // ready, status, restarts, age
	}{
		{"pending", func(p *corev1.Pod) {}, [4]string{"0/3", "Pending", "0", "3h"}},
		{"init", func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: running}}
		}, [4]string{"0/3", "Init:0/2", "0", "3h"}},
		{"init fails", func(p *corev1.Pod) {
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", RestartCount: 2,
				State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
				LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: ago(5 * time.Minute)}}}}
		}, [4]string{"0/3", "Init:CrashLoopBackOff", "2 (5m ago)", "3h"}},
		{"running", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodRunning
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{
				{Name: "i", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}},
				{Name: "s", State: running, Ready: true, Started: &yes}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{
				{Name: "a", State: running, Ready: true},
				{Name: "b", RestartCount: 3, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
					LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{FinishedAt: ago(90 * time.Second)}}}}
		}, [4]string{"2/3", "CrashLoopBackOff", "3 (90s ago)", "3h"}},
		{"completed", func(p *corev1.Pod) {
			p.Status.Phase = corev1.PodSucceeded
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}}}
			done := corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed"}}
			p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "a", State: done}, {Name: "b", State: done}}
		}, [4]string{"0/3", "Completed", "0", "3h"}},
		{"terminating", func(p *corev1.Pod) {
			now := ago(0)
			p.DeletionTimestamp = &now
		}, [4]string{"0/3", "Terminating", "0", "3h"}},
		{"node lost", func(p *corev1.Pod) {
			now := ago(0)
			p.DeletionTimestamp, p.Status.Reason = &now, "NodeLost"
		}, [4]string{"0/3", "Unknown", "0", "3h"}},
		{"gated", func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Reason: "SchedulingGated"}}
		}, [4]string{"0/3", "SchedulingGated", "0", "3h"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := base()
			c.change(p)
			row := podRow(p, now)
			got := [4]string{row[1].(string), row[2].(string), row[3].(string), row[4].(string)}
			if got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if row[5] != "<none>" || row[6] != "n1" || row[8] != "<none>" {
				t.Errorf("wide cells are %v", row[5:])
			}
		})
	}
}

func TestPodFields(t *testing.T) {
	p := parsePod(t, `spec: {nodeName: n1, serviceAccountName: s, hostNetwork: true, containers: [{name: a, image: i}]}`)
	p.Status.PodIP = "10.0.0.1"
	set := podFields(p)
	kind := Pod()
	if len(set) != len(kind.FieldLabels) {
		t.Errorf("%d fields, %d labels", len(set), len(kind.FieldLabels))
	}
	for _, label := range kind.FieldLabels {
		if _, ok := set[label]; !ok {
			t.Errorf("no value for %q", label)
		}
	}
	if set["spec.nodeName"] != "n1" || set["spec.hostNetwork"] != "true" || set["status.podIP"] != "10.0.0.1" {
		t.Errorf("fields are %v", set)
	}
}

func TestPodWarnings(t *testing.T) {
	p := parsePod(t, `{metadata: {name: a.b}, spec: {nodeSelector: {beta.kubernetes.io/os: linux}, imagePullSecrets: [{name: s}, {name: s}], containers: [{name: a, image: i, env: [{name: A, value: x}, {name: A, value: $(A)y}, {name: A, value: z}]}]}}`)
	got := strings.Join(Pod().Strategy.Warnings(p, kinds.Object(nil)), "\n")
	for _, want := range []string{
		"metadata.name: this is used in the Pod's hostname",
		`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		`spec.imagePullSecrets[1].name: duplicate name "s"`,
		`spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no warning %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "env[1]") {
		t.Error("appending to a variable is no mistake")
	}
}

func TestAppArmorAnnotationBecomesField(t *testing.T) {
	p := parsePod(t, `{metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/a: localhost/x, container.apparmor.security.beta.kubernetes.io/b: runtime/default}},
  spec: {containers: [{name: a, image: i}, {name: b, image: i, securityContext: {appArmorProfile: {type: RuntimeDefault}}}]}}`)
	profile := p.Spec.Containers[0].SecurityContext.AppArmorProfile
	if profile.Type != corev1.AppArmorProfileTypeLocalhost || *profile.LocalhostProfile != "x" {
		t.Errorf("profile is %+v", profile)
	}
	if got := lines(validatePodCreate(p)); got != "" {
		t.Error(got)
	}
}
