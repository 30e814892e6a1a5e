package cli

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func psPods() []*corev1.Pod {
	made := time.Unix(1000, 0)
	pod := func(name, uid string, s corev1.ContainerState, phase corev1.PodPhase) *corev1.Pod {
		made = made.Add(time.Second)
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid), CreationTimestamp: metav1.NewTime(made), Labels: map[string]string{"app": name}},
			Spec: corev1.PodSpec{Containers: []corev1.Container{{Image: "img:" + name, Ports: []corev1.ContainerPort{
				{ContainerPort: 80, HostPort: 8080, Protocol: corev1.ProtocolTCP}, {ContainerPort: 53, HostPort: 53, HostIP: "::1", Protocol: corev1.ProtocolUDP},
			}}}},
			Status: corev1.PodStatus{Phase: phase, ContainerStatuses: []corev1.ContainerStatus{{State: s}}},
		}
	}
	return []*corev1.Pod{
		pod("web", "0000aaaa-bbbb-cccc", corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.PodRunning),
		pod("job", "0000aaaa-bbbd-cccc", corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 3}}, corev1.PodFailed),
	}
}

func TestPsFormat(t *testing.T) {
	for format, want := range map[string]string{
		"{{.Names}} {{.State}}":                              "web running\njob exited\n",
		"table {{.Name}}\\t{{.Image}}":                       "NAME   IMAGE\nweb    img:web\njob    img:job\n",
		`{{.Label "app"}}{{.Label "no"}} {{.HealthStatus}}.`: "web .\njob .\n",
		"{{.Name}} {{.Size}}":                                "web 5 B\njob 5 B\n",
		"table {{.ID}}":                                      "CONTAINER ID\n0000aaaabbbb\n0000aaaabbbd\n",
		"{{json .Image}}":                                    "\"img:web\"\n\"img:job\"\n",
		"{{.Ports}}{{if .Labels}};{{end}}":                   "0.0.0.0:8080->80/tcp, [::1]:53->53/udp;\n0.0.0.0:8080->80/tcp, [::1]:53->53/udp;\n",
	} {
		var out bytes.Buffer
		if err := (psFormat{format: format, written: func(*corev1.Pod) string { return "5 B" }}).print(&out, psPods()); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v; want %q", format, out.String(), err, want)
		}
	}
	if err := (psFormat{format: "{{.Nothing}}"}).print(&bytes.Buffer{}, psPods()); err == nil {
		t.Error("an unknown field is taken")
	}
}

func TestPsFilters(t *testing.T) {
	for filters, want := range map[string]string{
		"": "web job", "name=eb": "web", "name=^/web$": "web", "name=^we$": "", "name=^(job|web)$": "web job", "status=dead": "", "status=exited": "job", "exited=3": "job", "exited=4": "", "label=app": "web job", "label=app=web": "web",
		"ancestor=img:job": "job", "name=web name=job": "web job", "name=web status=exited": "", "before=job": "web", "since=web": "job", "since=0000aaaabbbb": "job", "expose=80": "web job", "expose=81": "",
	} {
		keep, err := psFilters(strings.Fields(filters), psPods())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range psPods() {
			if keep(p) {
				got = append(got, p.Name)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", filters, got, want)
		}
	}
	for _, wrong := range []string{"name", "size=1", "name=(", "before=nobody", "status=odd", "exited=x"} {
		if _, err := psFilters([]string{wrong}, psPods()); err == nil {
			t.Errorf("%q is taken", wrong)
		}
	}
}

func TestPorts(t *testing.T) {
	for wanted, want := range map[string]string{
		"": "80/tcp -> 0.0.0.0:8080\n53/udp -> [::1]:53\n", "80": "0.0.0.0:8080\n", "53/udp": "[::1]:53\n",
	} {
		var out bytes.Buffer
		if err := leadsTo(psPods()[0], strings.Fields(wanted), &out); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v", wanted, out.String(), err)
		}
	}
	if err := leadsTo(psPods()[0], []string{"53"}, &bytes.Buffer{}); err == nil {
		t.Error("53/tcp is there")
	}
}

func TestSignalNumber(t *testing.T) {
	for text, want := range map[string]syscall.Signal{"TERM": 15, "sigusr1": 10, "9": 9} {
		if got, err := signalNumber(text); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "NOPE", "0", "99"} {
		if _, err := signalNumber(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}
