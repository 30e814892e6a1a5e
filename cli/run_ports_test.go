package cli

import (
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A port at which a program listens is not given to a container.
func TestPortsFree(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := int32(l.Addr().(*net.TCPAddr).Port)
	pod := func(protocol corev1.Protocol) *corev1.Pod {
		return &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{
			{ContainerPort: 80}, {ContainerPort: 80, HostPort: port, HostIP: "127.0.0.1", Protocol: protocol},
		}}}}}
	}
	if err := portsFree(t.Context(), pod(corev1.ProtocolTCP)); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("TCP, at which somebody listens: %v", err)
	}
	if err := portsFree(t.Context(), pod(corev1.ProtocolSCTP)); err != nil {
		t.Errorf("SCTP: %v", err)
	}
	l.Close()
	if err := portsFree(t.Context(), pod(corev1.ProtocolTCP)); err != nil {
		t.Errorf("TCP, at which nobody listens any more: %v", err)
	}
}
