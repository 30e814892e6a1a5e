package cli

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// The machine's own address is the node's, and who asks for it elsewhere hears so.
func TestReachHost(t *testing.T) {
	node := &corev1.Node{Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "n"}, {Type: corev1.NodeInternalIP, Address: "192.0.2.7"}}}}
	pod, err := meant("--add-host", "host.docker.internal:host-gateway", "--add-host", "db:10.0.0.1", "app")
	if err != nil {
		t.Fatal(err)
	}
	for _, nowhere := range []*corev1.Node{nil, {}} {
		if err := reachHost(pod.DeepCopy(), nowhere); err == nil || !strings.Contains(err.Error(), "host.docker.internal:host-gateway") {
			t.Errorf("no node: %v", err)
		}
	}
	if err := reachHost(pod, node); err != nil || pod.Spec.HostAliases[0].IP != "192.0.2.7" || pod.Spec.HostAliases[1].IP != "10.0.0.1" {
		t.Errorf("%v, %v", pod.Spec.HostAliases, err)
	}
}

// Whoever asks for what a pod can't be is told what to do instead.
func TestBeside(t *testing.T) {
	for _, words := range []string{"--network=container:db", "--pid=container:db", "--ipc=container:db"} {
		if _, err := meant(words, "app"); err == nil || !strings.Contains(err.Error(), "--target=db") {
			t.Errorf("%s: %v", words, err)
		}
	}
	for words, want := range map[string]string{"--add-host=db:nowhere": "is no address", "--memory=1k": "at least 6m"} {
		if _, err := meant(words, "app"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", words, err)
		}
	}
}
