package core

import "github.com/sampan-dev/sampan/kinds"

// oldPodFaults are the parts of a pod's spec in which an old fault may stay, as
// upstream derives its rules for an update from the pod that is stored.
var oldPodFaults = []string{
	"spec.affinity...matchExpressions.values[]",
	"spec.containers.lifecycle.postStart.sleep",
	"spec.containers.lifecycle.preStop.sleep",
	"spec.containers.resources",
	"spec.containers.securityContext",
	"spec.containers.volumeDevices",
	"spec.hostUsers",
	"spec.initContainers.lifecycle.postStart.sleep",
	"spec.initContainers.lifecycle.preStop.sleep",
	"spec.initContainers.resizePolicy",
	"spec.initContainers.resources",
	"spec.initContainers.restartPolicyRules",
	"spec.initContainers.securityContext",
	"spec.securityContext.seLinuxChangePolicy",
	"spec.securityContext.sysctls",
	"spec.topologySpreadConstraints.labelSelector",
	"spec.volumes.image.reference",
	"spec.volumes.projected.path",
}

// podRatchet is Strategy.Ratchet of pods.
func podRatchet() []string { return append([]string{"metadata.annotations"}, oldPodFaults...) }

// TemplateRatchet is Strategy.Ratchet of kinds with a pod template at the path,
// and a selector: labels in selectors were once not checked.
func TemplateRatchet(at string) []string {
	return append(kinds.Below(at, oldPodFaults), at+".metadata.annotations", "spec.selector.matchExpressions.values[]")
}
