package agent

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/plan"
)

// observe reads the engine and fills in what containers said when they ended.
func (m *machine) observe(ctx context.Context) error {
	if m.frozen || m.stage == ended {
		return nil // nothing of it changes any more
	}
	begin := time.Now()
	now, err := m.reader.Read(ctx, string(m.uid))
	if err != nil {
		return err
	}
	m.a.tally.PodRead(time.Since(begin))
	for i := range now.Containers {
		c := &now.Containers[i]
		if c.State == actual.Running {
			m.a.logs.Watch(c.ID, c.LogPath)
		}
		if c.State != actual.Exited {
			continue
		}
		if _, known := m.messages[c.ID]; !known {
			m.messages[c.ID] = terminationMessage(c)
		}
		if c.Message == "" {
			c.Message = m.messages[c.ID]
		}
	}
	m.now = now
	if box := now.Ready(); box != nil {
		m.mu.Lock()
		m.seenIPs = box.IPs
		m.mu.Unlock()
	}
	m.assume()
	m.forget()
	return nil
}

// forget drops what was known of containers and sandboxes that are gone.
func (m *machine) forget() {
	there := make(map[string]bool, len(m.now.Containers)+len(m.now.Sandboxes))
	for i := range m.now.Containers {
		there[m.now.Containers[i].ID] = true
	}
	for i := range m.now.Sandboxes {
		there[m.now.Sandboxes[i].ID] = true
	}
	maps.DeleteFunc(m.killed, func(id string, _ bool) bool { return !there[id] })
	maps.DeleteFunc(m.given, func(id string, _ plan.Given) bool { return !there[id] })
	maps.DeleteFunc(m.messages, func(id, _ string) bool { return !there[id] })
}

// assume takes over, once, what the last agent knew of running containers.
func (m *machine) assume() {
	if m.adopted {
		return
	}
	m.adopted = true
	if !m.fresh && m.now.Ready() == nil {
		m.a.places.devices.Doubt(string(m.uid))
		m.doubted = time.Now()
	}
	whole := remembered(m.pod)
	if box := m.now.Ready(); box != nil && m.pod.Status.Resources != nil {
		m.given[box.ID] = plan.Given{Own: *m.pod.Status.Resources.DeepCopy(), Whole: whole}
	}
	m.recognize(&m.pod.Status, func(c *actual.Container, st *corev1.ContainerStatus) {
		m.probes.Assume(c.ID, st.Started != nil && *st.Started, st.Ready)
		if st.Resources != nil {
			m.given[c.ID] = plan.Given{Own: *st.Resources.DeepCopy(), Whole: whole}
		}
	})
}

// recognize calls known with each container that runs and that last tells of.
func (m *machine) recognize(last *corev1.PodStatus, known func(*actual.Container, *corev1.ContainerStatus)) {
	for _, list := range [][]corev1.ContainerStatus{last.InitContainerStatuses, last.ContainerStatuses} {
		for i := range list {
			c := m.now.Latest(list[i].Name)
			if c != nil && c.State == actual.Running && list[i].ContainerID == m.a.runtimeName()+"://"+c.ID {
				known(c, &list[i])
			}
		}
	}
}
