package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/selinux"
	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/volume"
)

// config gathers everything that one container's configuration is made of.
func (st *starter) config(ctx context.Context) (*rt.ContainerConfig, error) {
	env := spec.Environment{
		Pod: st.pod, Container: st.c, Source: st.m.a.refs, Facts: st.m.facts(st.pod), Services: st.m.a.services.List(),
		Paths: st.set.Paths,
	}
	vars, err := env.Resolve(ctx)
	if err != nil {
		return nil, err
	}
	if st.throughout, err = st.m.a.throughout(ctx, st.pod, st.c); err != nil {
		return nil, err
	}
	mounts, err := st.mounts(vars)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(st.logPath()), 0o755); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	cfg, err := spec.Make{
		Pod: st.pod, Container: st.c, Attempt: st.attempt, Node: st.m.a.node, Env: vars, Image: st.image,
		Mounts: mounts, Target: st.target(), Groups: st.set.Groups,
	}.Config()
	if err != nil {
		return nil, err
	}
	if cfg.Devices, err = st.devices(); err != nil {
		return nil, err
	}
	return cfg, st.m.a.grant(ctx, st.pod, st.c, cfg)
}

func (st *starter) logPath() string {
	return filepath.Join(st.m.a.node.LogDirectory(st.pod), spec.LogPath(st.c.Name, st.attempt))
}

// target is the container whose processes an ephemeral container asks to see.
func (st *starter) target() string {
	for i := range st.pod.Spec.EphemeralContainers {
		e := &st.pod.Spec.EphemeralContainers[i]
		if e.Name != st.c.Name || e.TargetContainerName == "" {
			continue
		}
		if c := st.now.Latest(e.TargetContainerName); c != nil {
			return c.ID
		}
	}
	return ""
}

func (st *starter) mounts(vars []spec.Var) ([]*rt.Mount, error) {
	var list []*rt.Mount
	taken := map[string]bool{}
	for i := range st.c.VolumeMounts {
		m, err := st.mount(i, vars)
		if err != nil {
			return nil, err
		}
		taken[m.ContainerPath] = true
		list = append(list, m)
	}
	if !taken["/etc/hosts"] {
		path, err := st.hosts()
		if err != nil {
			return nil, err
		}
		list = append(list, &rt.Mount{ContainerPath: "/etc/hosts", HostPath: path, SelinuxRelabel: selinux.Enabled()})
	}
	if path := st.c.TerminationMessagePath; path != "" && !taken[path] {
		file, err := st.terminationFile()
		if err != nil {
			return nil, err
		}
		list = append(list, &rt.Mount{ContainerPath: path, HostPath: file, SelinuxRelabel: selinux.Enabled()})
	}
	return list, nil
}

func (st *starter) mount(index int, vars []spec.Var) (*rt.Mount, error) {
	m := &st.c.VolumeMounts[index]
	host, ok := st.set.Paths[m.Name]
	if !ok {
		return nil, fmt.Errorf("cannot find volume %q to mount into container %q", m.Name, st.c.Name)
	}
	sub := m.SubPath
	if m.SubPathExpr != "" {
		var err error
		if sub, err = expandSubPath(m.SubPathExpr, vars); err != nil {
			return nil, err
		}
	}
	path := m.MountPath
	if !filepath.IsAbs(path) {
		path = "/" + path
	}
	recursive, err := spec.Throughout(m, st.throughout != nil && *st.throughout)
	if err != nil {
		return nil, fmt.Errorf("failed to resolve recursive read-only mode: %w", err)
	}
	if img := st.images[m.Name]; img != nil {
		// The engine finds the part of an image, and refuses a way out of it.
		return &rt.Mount{ContainerPath: path, Image: img, ImageSubPath: sub, Readonly: true,
			Propagation: spec.Propagation(m.MountPropagation), RecursiveReadOnly: recursive}, nil
	}
	writable := writable(st.pod, m.Name) && !st.set.ReadOnly[m.Name]
	if sub != "" {
		var err error
		host, err = st.m.a.volumes.BindSubPath(volume.SubPath{
			PodUID: string(st.pod.UID), Volume: m.Name, Container: st.c.Name, Index: index,
			Root: host, Path: sub, Writable: writable,
		})
		if err != nil {
			return nil, err
		}
	}
	return &rt.Mount{
		ContainerPath: path, HostPath: host, Readonly: m.ReadOnly || !writable,
		Propagation: spec.Propagation(m.MountPropagation), RecursiveReadOnly: recursive,
		SelinuxRelabel: selinux.Enabled() && st.set.Relabel[m.Name],
	}, nil
}

// devices are the container's volumes that are devices. One whose claim is
// read-only can't be written to, nor made anew as a node.
func (st *starter) devices() ([]*rt.Device, error) {
	var list []*rt.Device
	for _, d := range st.c.VolumeDevices {
		host, ok := st.set.Paths[d.Name]
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, st.c.Name)
		}
		if !filepath.IsAbs(d.DevicePath) {
			return nil, fmt.Errorf("error DevicePath `%s` must be an absolute path", d.DevicePath)
		}
		permissions := "mrw"
		if st.set.ReadOnly[d.Name] {
			permissions = "r"
		}
		list = append(list, &rt.Device{ContainerPath: d.DevicePath, HostPath: host, Permissions: permissions})
	}
	return list, nil
}

// expandSubPath expands $(VAR) and refuses variables that aren't there.
func expandSubPath(expr string, vars []spec.Var) (string, error) {
	lookup, missing := spec.Lookup(vars), ""
	out := spec.Expand(expr, func(name string) (string, bool) {
		value, ok := lookup(name)
		if !ok {
			missing = name
		}
		return value, ok
	})
	if missing != "" {
		return "", fmt.Errorf("missing value for %q in subPathExpr %q", missing, expr)
	}
	return out, nil
}

// writable: volumes made from objects belong to the agent.
func writable(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name == name {
			return v.ConfigMap == nil && v.Secret == nil && v.DownwardAPI == nil && v.Projected == nil
		}
	}
	return true
}

// hosts writes the pod's /etc/hosts, which its containers share.
func (st *starter) hosts() (string, error) {
	host, err := os.ReadFile(st.m.a.cfg.HostsFile)
	if err != nil && st.pod.Spec.HostNetwork {
		return "", fmt.Errorf("read the host's hosts file: %w", err)
	}
	path := filepath.Join(st.m.a.volumes.Dir(string(st.pod.UID)), "etc-hosts")
	text := spec.Hosts(st.pod, st.m.podIPs(st.pod), st.m.a.cfg.ClusterDomain, string(host))
	if have, err := os.ReadFile(path); err == nil && string(have) == text {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("create the pod's directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("write the pod's hosts file: %w", err)
	}
	return path, nil
}

// terminationFile makes the file that a container may leave its last words in.
func (st *starter) terminationFile() (string, error) {
	var unique [4]byte
	rand.Read(unique[:])
	path := filepath.Join(st.m.a.volumes.Dir(string(st.pod.UID)), "containers", st.c.Name, hex.EncodeToString(unique[:]))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("create the container's directory: %w", err)
	}
	if err := os.WriteFile(path, nil, 0o666); err != nil {
		return "", fmt.Errorf("create the termination message file: %w", err)
	}
	// Whatever user the container runs as may write it, past the agent's umask.
	return path, os.Chmod(path, 0o666)
}
