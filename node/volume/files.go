package volume

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

// file is one file of a volume made from objects.
type file struct {
	data []byte
	mode os.FileMode
	// uid owns the file when it isn't -1.
	uid int
}

// payload is a volume's contents by relative path.
type payload map[string]file

// maker collects one volume's payload.
type maker struct {
	v       *Volumes
	name    string
	pod     *corev1.Pod
	facts   downward.Facts
	files   payload
	refresh time.Time
	mode    os.FileMode
}

// defaultFileMode is what files get when the volume names no mode (upstream's).
const defaultFileMode = 0o644

// files prepares the volumes whose contents come from the API.
func (v *Volumes) files(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume, facts downward.Facts) (string, time.Time, error) {
	m := &maker{v: v, name: vol.Name, pod: pod, facts: facts, files: payload{}}
	plugin, memory := "configmap", true
	var err error
	switch {
	case vol.ConfigMap != nil:
		memory = false
		m.mode = modeOf(vol.ConfigMap.DefaultMode)
		err = m.configMap(ctx, vol.ConfigMap.Name, vol.ConfigMap.Items, vol.ConfigMap.Optional)
	case vol.Secret != nil:
		plugin = "secret"
		m.mode = modeOf(vol.Secret.DefaultMode)
		err = m.secret(ctx, vol.Secret.SecretName, vol.Secret.Items, vol.Secret.Optional)
	case vol.DownwardAPI != nil:
		plugin = "downward-api"
		m.mode = modeOf(vol.DownwardAPI.DefaultMode)
		err = m.downward(vol.DownwardAPI.Items)
	case vol.Projected != nil:
		plugin = "projected"
		m.mode = modeOf(vol.Projected.DefaultMode)
		err = m.projected(ctx, vol.Projected.Sources)
	}
	if err != nil {
		return "", time.Time{}, err
	}
	dir := v.volumeDir(pod, plugin, vol.Name)
	if err := v.home(pod, dir, memory); err != nil {
		return "", time.Time{}, err
	}
	m.shareWithGroup()
	return dir, m.refresh, write(dir, m.files, m.group())
}

// home makes the volume's directory: a tmpfs for what may be secret, so that it
// never reaches a disk. Where tmpfs may not be mounted (no privilege) it is a
// plain directory, and the log says so.
func (v *Volumes) home(pod *corev1.Pod, dir string, memory bool) error {
	if memory && os.Getuid() == 0 {
		return v.mountTmpfs(pod, dir, 0)
	}
	if memory {
		v.cfg.Log.Warn("secret volume is kept on disk: mounting needs root", "dir", dir)
	}
	return makeDir(pod, dir)
}

func modeOf(mode *int32) os.FileMode {
	if mode == nil {
		return defaultFileMode
	}
	return os.FileMode(*mode)
}

func (m *maker) add(path string, data []byte, mode *int32) error {
	if err := checkPath(path); err != nil {
		return err
	}
	f := file{data: data, mode: m.mode, uid: -1}
	if mode != nil {
		f.mode = os.FileMode(*mode)
	}
	m.files[path] = f
	return nil
}

func absent(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && optional != nil && *optional
}

func (m *maker) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	cm, err := m.v.cfg.Source.ConfigMap(ctx, m.pod.Namespace, name)
	if absent(err, optional) {
		return nil
	}
	if err != nil {
		return err
	}
	values := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, s := range cm.Data {
		values[k] = []byte(s)
	}
	for k, b := range cm.BinaryData {
		values[k] = b
	}
	return m.pick(values, items, optional, "configmap references non-existent config key: %s")
}

func (m *maker) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool) error {
	s, err := m.v.cfg.Source.Secret(ctx, m.pod.Namespace, name)
	if absent(err, optional) {
		return nil
	}
	if err != nil {
		return err
	}
	return m.pick(s.Data, items, optional, "references non-existent secret key: %s")
}

// pick adds the wanted keys, or all of them when items is empty.
func (m *maker) pick(values map[string][]byte, items []corev1.KeyToPath, optional *bool, missing string) error {
	if len(items) == 0 {
		for k, data := range values {
			if err := m.add(k, data, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		data, ok := values[item.Key]
		if !ok && optional != nil && *optional {
			continue
		}
		if !ok {
			return fmt.Errorf(missing, item.Key)
		}
		if err := m.add(item.Path, data, item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) downward(items []corev1.DownwardAPIVolumeFile) error {
	for _, item := range items {
		text, err := m.downwardItem(item)
		if err != nil {
			return err
		}
		if err := m.add(item.Path, []byte(text), item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) downwardItem(item corev1.DownwardAPIVolumeFile) (string, error) {
	if item.FieldRef != nil {
		return downward.Field(m.pod, m.facts, item.FieldRef.FieldPath)
	}
	if item.ResourceFieldRef == nil {
		return "", fmt.Errorf("downward API file %q names no source", item.Path)
	}
	c := downward.Container(m.pod, item.ResourceFieldRef.ContainerName)
	if c == nil {
		return "", fmt.Errorf("container %s not found", item.ResourceFieldRef.ContainerName)
	}
	return downward.Resource(m.pod, c, item.ResourceFieldRef, m.facts.Allocatable)
}

func (m *maker) projected(ctx context.Context, sources []corev1.VolumeProjection) error {
	for i := range sources {
		if err := m.projection(ctx, i, &sources[i]); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) projection(ctx context.Context, index int, s *corev1.VolumeProjection) error {
	switch {
	case s.ConfigMap != nil:
		return m.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional)
	case s.Secret != nil:
		return m.secret(ctx, s.Secret.Name, s.Secret.Items, s.Secret.Optional)
	case s.DownwardAPI != nil:
		return m.downward(s.DownwardAPI.Items)
	case s.ServiceAccountToken != nil:
		return m.token(ctx, s.ServiceAccountToken)
	case s.ClusterTrustBundle != nil:
		return m.trustBundle(ctx, s.ClusterTrustBundle)
	case s.PodCertificate != nil:
		return m.certificate(ctx, index, s.PodCertificate)
	}
	return fmt.Errorf("projected volume source isn't supported by this node")
}

// shareWithGroup lets the pod's fsGroup, if any, read every file.
func (m *maker) shareWithGroup() {
	if _, ok := fsGroup(m.pod); !ok {
		return
	}
	for path, f := range m.files {
		f.mode |= 0o440
		m.files[path] = f
	}
}

func (m *maker) group() int {
	if gid, ok := fsGroup(m.pod); ok {
		return int(gid)
	}
	return -1
}
