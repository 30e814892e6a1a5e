package agent

import (
	corev1 "k8s.io/api/core/v1"
)

// wake makes the owner look again; it never blocks and may be called by anyone.
func (m *machine) wake() {
	select {
	case m.bell <- struct{}{}:
	default:
	}
}

// want leaves the pod's newest state for the owner.
func (m *machine) want(pod *corev1.Pod, gone bool) {
	m.mu.Lock()
	m.mail = change{pod: pod, gone: gone || m.mail.gone}
	m.mu.Unlock()
	m.wake()
}

// refsChanged says that an object which the pod uses has changed.
func (m *machine) refsChanged() {
	m.mu.Lock()
	m.refs = true
	m.mu.Unlock()
	m.wake()
}

// leaving: the pod is no more for whoever asked for it, and what came of it goes.
func (m *machine) leaving() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mail.gone
}

func (m *machine) ips() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seenIPs
}

// latest is the pod as it was last heard of.
func (m *machine) latest() *corev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mail.pod
}

// withStatus is a static pod with its status.
func (m *machine) withStatus() *corev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := *m.mail.pod
	p.Status = m.seenStatus
	return &p
}

// admitted is the pod as admission counts it, nil when it takes no room.
func (m *machine) admitted() *corev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.holds
}
