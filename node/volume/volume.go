// Package volume gives a pod its volumes as paths on this node: emptyDir,
// hostPath, configMap, secret, downwardAPI, projected, nfs, and claims
// (persistentVolumeClaim, ephemeral) on persistent volumes that are a hostPath,
// local or nfs; a local one of mode Block is a device, and its path a device node.
// Prepare may be called again at any time and then brings the
// contents up to date, switching all files of a volume at once; Remove unmounts
// everything and deletes what was the pod's own, never what is behind a mount.
// Image volumes are the engine's to mount: here they have no path.
//
// Directories are laid out as upstream's kubelet does, under
// <Root>/<pod uid>/volumes/kubernetes.io~<plugin>/<name>.
package volume

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

// Source hands out the objects that volumes are made from. Objects are shared
// and read-only; a missing one is an apierrors.IsNotFound error.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// TokenRequest says which token a projected volume wants.
type TokenRequest struct {
	Audience string
	Seconds  int64
}

// Tokens mints a service-account token bound to the pod and says when it ends.
type Tokens func(ctx context.Context, pod *corev1.Pod, r TokenRequest) (token string, expires time.Time, err error)

// Config is what New needs. Root, Source and Tokens are required.
type Config struct {
	// Root holds one directory a pod, named by its UID.
	Root   string
	Source Source
	Tokens Tokens
	// Bundles and Certificates may be nil: volumes that need them then fail.
	Bundles      Bundles
	Certificates Certificates
	// Claims may be nil: volumes that name a claim then fail.
	Claims Claims
	// Made is where this node makes directories for the volumes of the built-in
	// storage class; "" makes none.
	Made string
	// Warn tells of something about a pod that goes on all the same; it may be nil.
	Warn func(pod *corev1.Pod, reason, message string)
	// Tell tells of something about a pod that has gone well; it may be nil.
	Tell func(pod *corev1.Pod, reason, message string)
	// Seen is told of every attempt to mount or unmount a volume of a pod, or to map a
	// device: with upstream's names of plugin and operation. It may be nil.
	Seen func(plugin, operation string, took time.Duration, err error)
	// Log may be nil.
	Log *slog.Logger
}

// Volumes prepares and removes the volumes of pods. Calls for different pods
// may run concurrently; calls for one pod must not.
type Volumes struct {
	cfg    Config
	tokens *tokenCache
	lasts  lasting
	slow   slow
	disks  slow
	turns  turns
	open   devices
	there  inventory
	// swaps: the kernel has no tmpfs that is never swapped out.
	swaps atomic.Bool
}

// New returns a Volumes that keeps its files under cfg.Root.
func New(cfg Config) *Volumes {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Warn == nil {
		cfg.Warn = func(*corev1.Pod, string, string) {}
	}
	if cfg.Tell == nil {
		cfg.Tell = func(*corev1.Pod, string, string) {}
	}
	if cfg.Seen == nil {
		cfg.Seen = func(string, string, time.Duration, error) {}
	}
	v := &Volumes{cfg: cfg, tokens: newTokenCache(cfg.Tokens)}
	v.slow.late, v.disks.late = "the server does not answer, and the mount goes on", "the disk is being formatted or checked, which goes on"
	return v
}

// Set is the outcome of Prepare.
type Set struct {
	// Paths are the volumes' roots on this node, by volume name.
	Paths map[string]string
	// ReadOnly are the volumes that nobody may write to, whatever a mount says.
	ReadOnly map[string]bool
	// Relabel are the volumes whose files a container's SELinux label is to be given:
	// what is the pod's own, as far as upstream's kinds of volumes say so.
	Relabel map[string]bool
	// Groups are those that the pod's processes need to use its volumes.
	Groups []int64
	// Refresh is when Prepare should be called again because a token in one of
	// the volumes nears its end; zero for never.
	Refresh time.Time
}

// ready is one volume that can be used.
type ready struct {
	path     string
	readOnly bool
	relabel  bool
	// group is what its files are shared with, 0 for none.
	group int64
	// pv is the persistent volume that it is, "" for none.
	pv      string
	refresh time.Time
}

func (s *Set) add(name string, r ready) {
	s.Paths[name] = r.path
	if r.readOnly {
		s.ReadOnly[name] = true
	}
	if r.relabel {
		s.Relabel[name] = true
	}
	if r.group != 0 && !slices.Contains(s.Groups, r.group) {
		s.Groups = append(s.Groups, r.group)
	}
	if !r.refresh.IsZero() && (s.Refresh.IsZero() || r.refresh.Before(s.Refresh)) {
		s.Refresh = r.refresh
	}
}

// Covers reports whether the set has every volume that the pod's containers use: one
// that is added to a running pod may use another.
func (s Set) Covers(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		name := pod.Spec.Volumes[i].Name
		if _, is := s.Paths[name]; !is && used(pod, name) {
			return false
		}
	}
	return true
}

// Prepare makes every volume of the pod available that one of its containers, of
// whatever sort, mounts or has as a device; the others are not looked at. It is
// idempotent. On error
// the volumes that worked stay; the error names each that didn't. Claims that
// can't be used yet are one *ClaimError among the joined errors.
func (v *Volumes) Prepare(ctx context.Context, pod *corev1.Pod, facts downward.Facts) (Set, error) {
	set := Set{Paths: map[string]string{}, ReadOnly: map[string]bool{}, Relabel: map[string]bool{}}
	var failed []error
	var claims ClaimError
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		if !used(pod, vol.Name) {
			continue
		}
		begin := time.Now()
		r, err := v.prepare(ctx, pod, vol, facts)
		v.seen(pod, vol, begin, err)
		var unusable claimFault
		var step *stepError
		switch {
		case err == nil:
			set.add(vol.Name, r)
		case errors.As(err, &unusable):
			claims.add(vol.Name, unusable)
		case errors.As(err, &step):
			failed = append(failed, err)
		default:
			failed = append(failed, &stepError{step: setUp, volume: vol.Name, err: err})
		}
	}
	if len(claims.Volumes) > 0 {
		failed = append(failed, &claims)
	}
	return set, errors.Join(failed...)
}

// Steps of a mount, and of the mapping of a device, that can fail: upstream's names.
const (
	setUp       = "MountVolume.SetUp failed"
	mountDevice = "MountVolume.MountDevice failed"
	initialize  = "MountVolume.NewMounter initialization failed"
	optionable  = "MountVolume.MountOptionSupport check failed"
	reachable   = "MountVolume.NodeAffinity check failed"
	affine      = "MapVolume.NodeAffinity check failed"
	findMapper  = "MapVolume.FindMapperPluginBySpec failed"
	followLinks = "MapVolume.EvalHostSymlinks failed"
	setUpDevice = "MapVolume.SetUpDevice failed"
	mapDevice   = "MapVolume.MapBlockVolume failed"
)

// stepError says which step of which volume's mount failed.
type stepError struct {
	step, volume string
	err          error
}

func (e *stepError) Error() string {
	return fmt.Sprintf("%s for volume %q : %s", e.step, e.volume, e.err)
}

// Reason is that of upstream's event about an error of Prepare's.
func Reason(err error) string {
	var step *stepError
	if errors.As(err, &step) && strings.HasPrefix(step.step, "MapVolume.") && step.step != affine {
		return "FailedMapVolume"
	}
	return "FailedMount"
}

func (e *stepError) Unwrap() error { return e.err }

func (v *Volumes) prepare(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume, facts downward.Facts) (ready, error) {
	switch {
	case vol.EmptyDir != nil:
		path, err := v.emptyDir(pod, vol, facts)
		return ready{path: path, relabel: true}, err
	case vol.HostPath != nil:
		return ready{path: vol.HostPath.Path}, hostPath(vol.HostPath)
	case vol.ConfigMap != nil, vol.Secret != nil, vol.DownwardAPI != nil, vol.Projected != nil:
		path, refresh, err := v.files(ctx, pod, vol, facts)
		return ready{path: path, relabel: true, refresh: refresh}, err
	case vol.PersistentVolumeClaim != nil, vol.Ephemeral != nil:
		return v.lasts.once(pod, vol.Name, func() (ready, error) { return v.claimed(ctx, pod, vol) })
	case vol.NFS != nil:
		return v.lasts.once(pod, vol.Name, func() (ready, error) {
			dir := v.volumeDir(pod, nfsPlugin, vol.Name)
			return ready{path: dir, readOnly: vol.NFS.ReadOnly}, v.nfs(ctx, export{NFSVolumeSource: *vol.NFS, dir: dir})
		})
	case vol.Image != nil:
		return ready{readOnly: true}, nil
	case vol.CSI != nil:
		return ready{}, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", vol.CSI.Driver)
	case vol.GitRepo != nil:
		return ready{}, errGitRepo
	}
	return ready{}, errors.New("no volume plugin matched")
}

// errGitRepo begins as upstream's error does where the feature GitRepoVolumeDriver is off
// (KEP-5040), as it is by default; here it cannot be switched on.
var errGitRepo = errors.New("git-repo volume plugin has been disabled: it runs git on the node with the rights of root (CVE-2024-10220); " +
	"let an init container clone the repository into an emptyDir")

// Dir is where a pod keeps everything on this node.
func (v *Volumes) Dir(uid string) string { return filepath.Join(v.cfg.Root, filepath.Base(uid)) }

// volumeDir is one volume's root; plugin is upstream's name for the sort.
func (v *Volumes) volumeDir(pod *corev1.Pod, plugin, name string) string {
	return filepath.Join(v.Dir(string(pod.UID)), "volumes", "kubernetes.io~"+plugin, name)
}

// used reports whether a container of the pod mounts a volume or has it as a device.
func used(pod *corev1.Pod, name string) (is bool) {
	each(pod, func(c *corev1.Container) {
		is = is || slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name }) ||
			slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == name })
	})
	return is
}

// Path is where a pod's volume is on this node, "" for one that isn't a directory
// of the pod's own, or that no container uses: there is nothing of the pod's to
// measure.
func (v *Volumes) Path(pod *corev1.Pod, vol *corev1.Volume) string {
	switch {
	case !used(pod, vol.Name):
		return ""
	case vol.EmptyDir != nil:
		return v.volumeDir(pod, "empty-dir", vol.Name)
	case vol.ConfigMap != nil:
		return v.volumeDir(pod, "configmap", vol.Name)
	case vol.Secret != nil:
		return v.volumeDir(pod, "secret", vol.Name)
	case vol.DownwardAPI != nil:
		return v.volumeDir(pod, "downward-api", vol.Name)
	case vol.Projected != nil:
		return v.volumeDir(pod, "projected", vol.Name)
	}
	return ""
}

// References are the objects that a pod's volumes, environment and pull secrets
// name: what the node must watch for it. Names are unique.
func References(pod *corev1.Pod) (configMaps, secrets []string) {
	r := refs{maps: map[string]bool{}, secrets: map[string]bool{}}
	for i := range pod.Spec.Volumes {
		r.volume(&pod.Spec.Volumes[i])
	}
	each(pod, func(c *corev1.Container) {
		for _, e := range c.Env {
			r.env(e.ValueFrom)
		}
		for _, e := range c.EnvFrom {
			if e.ConfigMapRef != nil {
				r.maps[e.ConfigMapRef.Name] = true
			}
			if e.SecretRef != nil {
				r.secrets[e.SecretRef.Name] = true
			}
		}
	})
	for _, s := range pod.Spec.ImagePullSecrets {
		r.secrets[s.Name] = true
	}
	return names(r.maps), names(r.secrets)
}

type refs struct{ maps, secrets map[string]bool }

func (r refs) volume(v *corev1.Volume) {
	if v.ConfigMap != nil {
		r.maps[v.ConfigMap.Name] = true
	}
	if v.Secret != nil {
		r.secrets[v.Secret.SecretName] = true
	}
	if v.Projected == nil {
		return
	}
	for _, s := range v.Projected.Sources {
		if s.ConfigMap != nil {
			r.maps[s.ConfigMap.Name] = true
		}
		if s.Secret != nil {
			r.secrets[s.Secret.Name] = true
		}
	}
}

func (r refs) env(from *corev1.EnvVarSource) {
	if from == nil {
		return
	}
	if from.ConfigMapKeyRef != nil {
		r.maps[from.ConfigMapKeyRef.Name] = true
	}
	if from.SecretKeyRef != nil {
		r.secrets[from.SecretKeyRef.Name] = true
	}
}

func each(pod *corev1.Pod, fn func(*corev1.Container)) {
	for i := range pod.Spec.InitContainers {
		fn(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		fn(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		fn((*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
}

func names(set map[string]bool) []string {
	var list []string
	for n := range set {
		if strings.TrimSpace(n) != "" {
			list = append(list, n)
		}
	}
	return list
}
