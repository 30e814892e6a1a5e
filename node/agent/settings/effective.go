package settings

import (
	"cmp"
	"reflect"
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
)

// idsPerPod is how many users of the host a pod with users of its own has.
const idsPerPod = 1 << 16

// Effective is a complete configuration as it is acted upon: a field that has no
// effect is empty whatever a file said, or tells how it is. k is not changed.
func Effective(k Kubelet) Kubelet {
	c := *k.DeepCopy()
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if _, is := ignored[name]; is {
			v.Field(i).SetZero()
		}
	}
	c.TLSMinVersion, c.RotateCertificates = cmp.Or(c.TLSMinVersion, "VersionTLS12"), true
	c.EnableDebugFlagsHandler, c.MakeIPTablesUtilChains = ptr.To(false), ptr.To(false)
	c.CgroupDriver = cgroupfs
	c.HairpinMode, c.ContentType = kubeletv1beta1.HairpinVeth, "application/vnd.kubernetes.protobuf"
	c.ConfigMapAndSecretChangeDetectionStrategy = kubeletv1beta1.WatchChangeDetectionStrategy
	for name := range c.StaticPodURLHeader {
		c.StaticPodURLHeader[name] = []string{"<masked>"} // as upstream: there may be passwords
	}
	c.MemoryReservationPolicy = cmp.Or(c.MemoryReservationPolicy, kubeletv1beta1.NoneMemoryReservationPolicy)
	c.MemorySwap.SwapBehavior = cmp.Or(c.MemorySwap.SwapBehavior, "NoSwap")
	c.EnableSystemLogHandler, c.EnableSystemLogQuery = pick(c.EnableSystemLogHandler, true), pick(c.EnableSystemLogQuery, false)
	if gates, err := ReadGates(k.FeatureGates); err == nil {
		c.FeatureGates = gates.effective(k.FeatureGates)
	}
	if c.UserNamespaces == nil {
		c.UserNamespaces = &kubeletv1beta1.UserNamespaces{}
	}
	c.UserNamespaces.IDsPerPod = pick(c.UserNamespaces.IDsPerPod, idsPerPod)
	return c
}
