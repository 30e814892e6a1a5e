package volume

import (
	"errors"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// prefix is that of upstream's plugins.
const prefix = "kubernetes.io/"

// Operations on volumes, upstream's names.
const (
	opMount   = "volume_mount"
	opUnmount = "volume_unmount"
	opMap     = "map_volume"
	opUnmap   = "unmap_volume"
)

// Plugin is upstream's name for what makes a pod's volume; "" for one that names a
// claim, of which its persistent volume decides.
func Plugin(vol *corev1.Volume) string {
	switch {
	case vol.EmptyDir != nil:
		return prefix + "empty-dir"
	case vol.HostPath != nil:
		return prefix + "host-path"
	case vol.ConfigMap != nil:
		return prefix + "configmap"
	case vol.Secret != nil:
		return prefix + "secret"
	case vol.DownwardAPI != nil:
		return prefix + "downward-api"
	case vol.Projected != nil:
		return prefix + "projected"
	case vol.NFS != nil:
		return prefix + nfsPlugin
	case vol.CSI != nil:
		return prefix + "csi:" + vol.CSI.Driver
	case vol.Image != nil:
		return prefix + "image"
	case vol.GitRepo != nil:
		return prefix + "git-repo"
	}
	return ""
}

// pluginOf is the same of a persistent volume.
func pluginOf(pv *corev1.PersistentVolume) string {
	switch {
	case pv.Spec.HostPath != nil:
		return prefix + "host-path"
	case pv.Spec.Local != nil:
		return prefix + localPlugin
	case pv.Spec.NFS != nil:
		return prefix + nfsPlugin
	case pv.Spec.CSI != nil:
		return prefix + "csi:" + pv.Spec.CSI.Driver
	}
	return ""
}

// inventory is which volumes pods have on this node.
type inventory struct {
	mu   sync.Mutex
	pods map[types.UID][]held
}

// held is one volume of a pod.
type held struct {
	name, plugin string
	device       bool
	ready        bool
}

// note keeps what a volume is made by; once it is known it stays.
func (i *inventory) note(uid types.UID, h held) held {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pods == nil {
		i.pods = map[types.UID][]held{}
	}
	list := i.pods[uid]
	at := slices.IndexFunc(list, func(o held) bool { return o.name == h.name })
	if at < 0 {
		i.pods[uid] = append(list, h)
		return h
	}
	if h.plugin != "" {
		list[at].plugin, list[at].device = h.plugin, h.device
	}
	list[at].ready = list[at].ready || h.ready
	return list[at]
}

// of are a pod's.
func (i *inventory) of(uid types.UID) []held {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.pods[uid])
}

func (i *inventory) forget(uid types.UID) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.pods, uid)
}

// Held is how many volumes pods want here and how many of those are there, by
// plugin.
func (v *Volumes) Held() (wanted, there map[string]int) {
	wanted, there = map[string]int{}, map[string]int{}
	v.there.mu.Lock()
	defer v.there.mu.Unlock()
	for _, volumes := range v.there.pods {
		for _, h := range volumes {
			wanted[h.plugin]++
			if h.ready {
				there[h.plugin]++
			}
		}
	}
	return wanted, there
}

// seen tells of an attempt to make a volume available. Nothing is told while its claim
// isn't bound: nobody knows then what would have been tried.
func (v *Volumes) seen(pod *corev1.Pod, vol *corev1.Volume, begin time.Time, err error) {
	if vol.Image != nil {
		return // the engine's
	}
	h := v.there.note(pod.UID, held{name: vol.Name, plugin: Plugin(vol), ready: err == nil})
	var unbound claimFault
	if h.plugin == "" || errors.As(err, &unbound) {
		return
	}
	operation := opMount
	if h.device {
		operation = opMap
	}
	v.cfg.Seen(h.plugin, operation, time.Since(begin), err)
}

// unseen tells of the end of all volumes of a pod, which are taken away together.
func (v *Volumes) unseen(uid types.UID, begin time.Time, err error) {
	for _, h := range v.there.of(uid) {
		if !h.ready {
			continue
		}
		operation := opUnmount
		if h.device {
			operation = opUnmap
		}
		v.cfg.Seen(h.plugin, operation, time.Since(begin), err)
	}
	if err == nil {
		v.there.forget(uid)
	}
}
