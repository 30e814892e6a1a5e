package volume

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Claims reads what a pod's claims are bound to. Objects are shared and
// read-only.
type Claims interface {
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
	// Reachable says why the volume can't be used from this node, nil when it can.
	Reachable(pv *corev1.PersistentVolume) error
}

// ClaimError says which of a pod's volumes can't be had because of their claims:
// unbound, unknown, somebody else's. Others must act before it goes away.
type ClaimError struct {
	// Volumes are the names in the pod.
	Volumes []string
	// Soon: each of the claims has its volume, and its status will say so any moment.
	Soon   bool
	causes []string
}

// claimFault is why one claim can't be used.
type claimFault struct{ error }

// errUnbound is upstream's text; errSoon says it of a claim that has a volume already,
// which is how a scheduler finds it, but whose status doesn't say so yet.
var (
	errUnbound = errors.New("PVC is not bound")
	errSoon    = fmt.Errorf("%w", errUnbound)
)

func (e *ClaimError) add(volume string, cause claimFault) {
	e.Soon = (e.Soon || len(e.Volumes) == 0) && errors.Is(cause.error, errSoon)
	e.Volumes = append(e.Volumes, volume)
	slices.Sort(e.Volumes)
	e.causes = append(e.causes, cause.Error())
}

// Error is the text of upstream's event.
func (e *ClaimError) Error() string {
	return fmt.Sprintf("Unable to attach or mount volumes: unmounted volumes=%v, unattached volumes=[], failed to process volumes=%v: %s",
		e.Volumes, e.Volumes, strings.Join(e.causes, "; "))
}

// protection keeps claims that pods use from going away.
const protection = "kubernetes.io/pvc-protection"

// groupAnnotation of a persistent volume names a group that its files belong to.
const groupAnnotation = "pv.beta.kubernetes.io/gid"

// claimed makes the persistent volume behind a claim available.
func (v *Volumes) claimed(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume) (ready, error) {
	name, readOnly := pod.Name+"-"+vol.Name, false
	if c := vol.PersistentVolumeClaim; c != nil {
		name, readOnly = c.ClaimName, c.ReadOnly
	}
	if v.cfg.Claims == nil {
		return ready{}, errors.New("claims are not supported by this node")
	}
	pv, err := v.bound(ctx, pod, vol, name)
	if err != nil {
		return ready{}, claimFault{err}
	}
	v.there.note(pod.UID, held{name: vol.Name, plugin: pluginOf(pv), device: isBlock(pv)})
	check, mount := reachable, setUp
	if isBlock(pv) {
		check, mount = affine, setUpDevice
	}
	if err := v.cfg.Claims.Reachable(pv); err != nil {
		return ready{}, &stepError{step: check, volume: pv.Name, err: err}
	}
	if onePodOnly(pv) && v.lasts.elsewhere(string(pod.UID), pv.Name) {
		return ready{}, &stepError{step: mount, volume: pv.Name, err: errTaken}
	}
	r, err := v.persistent(ctx, pod, pv, readOnly)
	var step *stepError
	if err != nil && !errors.As(err, &step) {
		err = &stepError{step: mount, volume: pv.Name, err: err}
	}
	r.pv = pv.Name
	return r, err
}

// bound is the persistent volume that a claim and itself say belongs to the
// claim, in a mode that the pod can use.
func (v *Volumes) bound(ctx context.Context, pod *corev1.Pod, vol *corev1.Volume, name string) (*corev1.PersistentVolume, error) {
	claim, err := v.claim(ctx, pod.Namespace, name)
	if err != nil {
		return nil, fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)
	}
	if vol.Ephemeral != nil && !metav1.IsControlledBy(claim, pod) {
		return nil, fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, claim.Name, pod.Namespace, pod.Name)
	}
	pv, err := v.cfg.Claims.PersistentVolume(ctx, claim.Spec.VolumeName)
	switch {
	case err != nil:
		err = fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err)
	case pv.Spec.ClaimRef == nil:
		err = fmt.Errorf("found PV object %s but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim", pv.Name)
	case pv.Spec.ClaimRef.UID != claim.UID:
		err = fmt.Errorf("found PV object %s but its pv.Spec.ClaimRef.UID %s does not point to claim.UID %s", pv.Name, pv.Spec.ClaimRef.UID, claim.UID)
	}
	if err != nil {
		return nil, fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)
	}
	return pv, mode(pod, vol.Name, pv)
}

func (v *Volumes) claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	claim, err := v.cfg.Claims.Claim(ctx, namespace, name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("failed to fetch PVC from API server: %w", err)
	case claim.DeletionTimestamp != nil && !slices.Contains(claim.Finalizers, protection):
		return nil, errors.New("PVC is being deleted")
	case claim.Status.Phase != corev1.ClaimBound && claim.Spec.VolumeName != "":
		return nil, errSoon
	case claim.Status.Phase != corev1.ClaimBound:
		return nil, errUnbound
	case claim.Spec.VolumeName == "":
		return nil, errors.New("PVC has empty pvc.Spec.VolumeName")
	}
	return claim, nil
}

// mode checks that containers use the volume as what it is.
func mode(pod *corev1.Pod, name string, pv *corev1.PersistentVolume) error {
	is := corev1.PersistentVolumeFilesystem
	if pv.Spec.VolumeMode != nil {
		is = *pv.Spec.VolumeMode
	}
	mounted, device := false, false
	each(pod, func(c *corev1.Container) {
		mounted = mounted || slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == name })
		device = device || slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == name })
	})
	switch {
	case mounted && is != corev1.PersistentVolumeFilesystem:
		return fmt.Errorf("volume %s has volumeMode %s, but is specified in volumeMounts", name, is)
	case device && is != corev1.PersistentVolumeBlock:
		return fmt.Errorf("volume %s has volumeMode %s, but is specified in volumeDevices", name, is)
	}
	return nil
}

// persistent makes a volume available by what it is made of. As upstream, only
// the claim's use in the pod makes it read-only: access modes say who may use a
// volume at once, and are the scheduler's.
func (v *Volumes) persistent(ctx context.Context, pod *corev1.Pod, pv *corev1.PersistentVolume, readOnly bool) (ready, error) {
	r := ready{readOnly: readOnly}
	if gid, err := strconv.ParseInt(pv.Annotations[groupAnnotation], 10, 64); err == nil && gid > 0 {
		r.group = gid
	}
	options := mountOptions(pv)
	switch {
	case isBlock(pv):
		var err error
		r.path, err = v.device(ctx, pod, pv)
		return r, err
	case pv.Spec.HostPath != nil:
		if len(options) > 0 {
			return r, &stepError{step: optionable, volume: pv.Name, err: errors.New("mount options are not supported for this volume type")}
		}
		r.path = pv.Spec.HostPath.Path
		return r, hostPath(pv.Spec.HostPath)
	case pv.Spec.Local != nil:
		var err error
		r.path, err = v.local(ctx, pod, pv, localMount{path: pv.Spec.Local.Path, options: options, readOnly: readOnly})
		r.relabel = !readOnly
		return r, err
	case pv.Spec.NFS != nil:
		source := *pv.Spec.NFS
		source.ReadOnly = source.ReadOnly || readOnly
		r.path, r.readOnly = v.volumeDir(pod, nfsPlugin, pv.Name), source.ReadOnly
		return r, v.nfs(ctx, export{NFSVolumeSource: source, dir: r.path, options: options})
	case pv.Spec.CSI != nil:
		return r, &stepError{step: initialize, volume: pv.Name,
			err: fmt.Errorf("driver name %s not found in the list of registered CSI drivers", pv.Spec.CSI.Driver)}
	}
	return r, errors.New("no volume plugin matched")
}

// errTaken is why a volume that one pod may use at a time can't be had.
var errTaken = errors.New("volume uses the ReadWriteOncePod access mode and is already in use by another pod")

func onePodOnly(pv *corev1.PersistentVolume) bool {
	modes := pv.Spec.AccessModes // with several, nobody knows which one a pod means
	return len(modes) == 1 && modes[0] == corev1.ReadWriteOncePod
}

// Lent is where a pod has the volumes of its claims that are on disks of this node,
// by volume name. A server's are left out: to ask one how full it is may take for
// ever.
func (v *Volumes) Lent(uid string) map[string]string {
	home := filepath.Join(v.Dir(uid), "volumes", "kubernetes.io~"+localPlugin) + "/"
	paths := v.lasts.paths(uid)
	for name, path := range paths {
		if !strings.HasPrefix(path, home) {
			delete(paths, name)
		}
	}
	return paths
}

// mountOptions are a volume's, also of the annotation that they once were.
func mountOptions(pv *corev1.PersistentVolume) []string {
	if old, ok := pv.Annotations[corev1.MountOptionAnnotation]; ok {
		return strings.Split(old, ",")
	}
	return pv.Spec.MountOptions
}

// lasting remembers volumes that stay as they are once they are mounted, so that
// bringing others of the pod up to date asks nobody about them.
type lasting struct {
	mu   sync.Mutex
	pods map[string]map[string]ready
}

// once makes a pod's volume unless it has been made.
func (l *lasting) once(pod *corev1.Pod, volume string, do func() (ready, error)) (ready, error) {
	uid := string(pod.UID)
	l.mu.Lock()
	r, ok := l.pods[uid][volume]
	l.mu.Unlock()
	if ok {
		return r, nil
	}
	r, err := do()
	if err != nil {
		return r, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pods == nil {
		l.pods = map[string]map[string]ready{}
	}
	if l.pods[uid] == nil {
		l.pods[uid] = map[string]ready{}
	}
	l.pods[uid][volume] = r
	return r, nil
}

// elsewhere says whether another pod has the persistent volume.
func (l *lasting) elsewhere(uid, pv string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for other, volumes := range l.pods {
		for _, r := range volumes {
			if other != uid && r.pv == pv {
				return true
			}
		}
	}
	return false
}

// paths are those of a pod's volumes that have been made, by volume name.
func (l *lasting) paths(uid string) map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := map[string]string{}
	for name, r := range l.pods[uid] {
		all[name] = r.path
	}
	return all
}

func (l *lasting) forget(uid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.pods, uid)
}
