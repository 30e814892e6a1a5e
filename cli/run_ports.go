package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// portsFree makes sure that no program of this machine listens at a port that is to lead
// to a container: the port would be taken from it. Ports of other pods are the
// scheduler's matter, for nobody listens at those.
func portsFree(ctx context.Context, pod *corev1.Pod) error {
	for _, p := range pod.Spec.Containers[0].Ports {
		if p.HostPort == 0 {
			continue
		}
		at := net.JoinHostPort(p.HostIP, strconv.Itoa(int(p.HostPort)))
		if err := tryPort(ctx, strings.ToLower(string(p.Protocol)), at); errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d/%s of this machine is taken: a program listens at it (ss -lp tells which)", p.HostPort, strings.ToLower(string(p.Protocol)))
		}
	}
	return nil
}

// tryPort listens for a moment. That it fails otherwise means nothing: we may not, or
// the kernel has no such protocol.
func tryPort(ctx context.Context, protocol, at string) error {
	var lc net.ListenConfig
	if protocol == "udp" {
		c, err := lc.ListenPacket(ctx, protocol, at)
		if err == nil {
			err = c.Close()
		}
		return err
	}
	if protocol != "tcp" {
		return nil
	}
	l, err := lc.Listen(ctx, protocol, at)
	if err == nil {
		err = l.Close()
	}
	return err
}

// portsFreeHere is portsFree for a pod that is made, where it is kept on this machine.
func (s *server) portsFreeHere(ctx context.Context, pod *corev1.Pod) error {
	name := onlyNode(pod)
	if name == "" {
		return nil
	}
	node, err := s.localNode(ctx)
	if err != nil || node == nil || node.Name != name || !hasOurAddress(node) {
		return err
	}
	return portsFree(ctx, pod)
}
