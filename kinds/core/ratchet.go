package core

import "github.com/sampan-dev/sampan/kinds"

// oldPodFaults are the faults of a pod's spec that may stay, as upstream derives its
// rules for an update from the pod that is stored: those of rules that are younger
// than the field.
var oldPodFaults = append([]string{
	"spec.affinity...matchExpressions.values[]",
	"spec.hostUsers",
	"spec.initContainers.resizePolicy: non-sidecar",
	"spec.securityContext.seLinuxChangePolicy",
	"spec.securityContext.sysctls: may not be specified when",
	"spec.topologySpreadConstraints.labelSelector",
	"spec.volumes.image.reference",
	"spec.volumes.projected.path",
}, oldContainerFaults("resources: "+indivisible, "securityContext: CAP_SYS_ADMIN", "volumeDevices: "+ownUsers)...)

// oldContainerFaults are faults of containers of all sorts.
func oldContainerFaults(faults ...string) (all []string) {
	for _, list := range []string{"containers", "initContainers", "ephemeralContainers"} {
		all = append(all, kinds.Below("spec."+list, faults)...)
	}
	return all
}

// podRatchet is Strategy.Ratchet of pods.
func podRatchet() []string { return append([]string{"metadata.annotations"}, oldPodFaults...) }

// TemplateRatchet is Strategy.Ratchet of kinds with a pod template at the path.
func TemplateRatchet(at string) []string {
	return append(kinds.Below(at, oldPodFaults), at+".metadata.annotations")
}

// OldSelector is Strategy.Ratchet of kinds with a label selector whose labels were once
// not checked.
const OldSelector = "spec.selector.matchExpressions.values[]"
