package core

import (
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// The limits on a container's restart rules.
const (
	maxRestartRules = 20
	maxExitCodes    = 255
)

// checkContainers checks the containers that do the pod's work.
func (c *podCheck) checkContainers(at *kinds.Path) {
	if len(c.spec.Containers) == 0 {
		c.Required(at, "")
		return
	}
	names, hostPorts := sets.New[string](), sets.New[string]()
	for i := range c.spec.Containers {
		container, here := &c.spec.Containers[i], at.Index(i)
		c.checkContainer(container, here)
		c.uniqueName(names, container.Name, here)
		c.checkHooks(container, here)
		c.checkRestartPolicy(container.RestartPolicy, container.RestartPolicyRules, here)
	}
	for i := range c.spec.Containers {
		c.uniqueHostPorts(hostPorts, c.spec.Containers[i].Ports, at.Index(i).Child("ports"))
	}
}

// checkInitContainers checks the containers that run before, and the sidecars
// among them.
func (c *podCheck) checkInitContainers(at *kinds.Path) {
	names := sets.New[string]()
	for i := range c.spec.Containers {
		names.Insert(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		container, here := &c.spec.InitContainers[i], at.Index(i)
		c.checkContainer(container, here)
		c.checkInitRestarts(container, here)
		c.uniqueName(names, container.Name, here)
		c.uniqueHostPorts(sets.New[string](), container.Ports, here.Child("ports"))
		if Sidecar(container) {
			c.checkHooks(container, here)
			continue
		}
		c.checkOrdinaryInit(container, here)
	}
}

// checkOrdinaryInit refuses what an init container that ends has no use for.
func (c *podCheck) checkOrdinaryInit(container *corev1.Container, at *kinds.Path) {
	const only = "may not be set for init containers without restartPolicy=Always"
	for _, hook := range []struct {
		field string
		set   bool
	}{
		{"lifecycle", container.Lifecycle != nil},
		{"livenessProbe", container.LivenessProbe != nil},
		{"readinessProbe", container.ReadinessProbe != nil},
		{"startupProbe", container.StartupProbe != nil},
	} {
		if hook.set {
			c.Forbidden(at.Child(hook.field), only)
		}
	}
	for i, policy := range container.ResizePolicy {
		if policy.RestartPolicy == corev1.RestartContainer {
			c.Invalid(at.Child("resizePolicy").Index(i).Child("restartPolicy"), policy.RestartPolicy,
				"must not be set to 'RestartContainer' for non-sidecar initContainers")
		}
	}
}

// ephemeralFields are the fields that an ephemeral container may have. A list
// of what is allowed makes a new field forbidden until somebody thinks about it.
var ephemeralFields = sets.New("Name", "Image", "Command", "Args", "WorkingDir", "EnvFrom", "Env", "VolumeMounts",
	"VolumeDevices", "TerminationMessagePath", "TerminationMessagePolicy", "ImagePullPolicy", "SecurityContext",
	"Stdin", "StdinOnce", "TTY")

// checkEphemeralContainers checks the containers added to a running pod.
func (c *podCheck) checkEphemeralContainers(at *kinds.Path) {
	targets := sets.New[string]()
	for i := range c.spec.Containers {
		targets.Insert(c.spec.Containers[i].Name)
	}
	for i := range c.spec.InitContainers {
		targets.Insert(c.spec.InitContainers[i].Name)
	}
	names := targets.Clone()
	for i := range c.spec.EphemeralContainers {
		ephemeral, here := &c.spec.EphemeralContainers[i], at.Index(i)
		container := corev1.Container(ephemeral.EphemeralContainerCommon)
		c.checkContainer(&container, here)
		imageUnpadded(&c.Faults, container.Image, here)
		c.uniqueName(names, ephemeral.Name, here)
		if target := ephemeral.TargetContainerName; target != "" && !targets.Has(target) {
			c.NotFound(here.Child("targetContainerName"), target)
		}
		c.onlyFields(ephemeral.EphemeralContainerCommon, ephemeralFields, "cannot be set for an Ephemeral Container", here)
		for j, mount := range ephemeral.VolumeMounts {
			c.noSubPath(mount, here.Child("volumeMounts").Index(j))
		}
	}
}

// noSubPath: such mounts would outlive an ephemeral container.
func (c *podCheck) noSubPath(mount corev1.VolumeMount, at *kinds.Path) {
	if mount.SubPath != "" {
		c.Forbidden(at.Child("subPath"), "cannot be set for an Ephemeral Container")
	}
	if mount.SubPathExpr != "" {
		c.Forbidden(at.Child("subPathExpr"), "cannot be set for an Ephemeral Container")
	}
}

// onlyFields forbids every field of a struct that is set and not allowed.
func (c *podCheck) onlyFields(value any, allowed sets.Set[string], detail string, at *kinds.Path) {
	v := reflect.ValueOf(value)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if allowed.Has(name) || v.Field(i).IsZero() {
			continue
		}
		c.Forbidden(at.Child(strings.ToLower(name[:1])+name[1:]), detail)
	}
}

func (c *podCheck) uniqueName(names sets.Set[string], name string, at *kinds.Path) {
	if names.Has(name) {
		c.Duplicate(at.Child("name"), name)
		return
	}
	if name != "" {
		names.Insert(name)
	}
}

// checkContainer checks what all containers have in common.
func (c *podCheck) checkContainer(container *corev1.Container, at *kinds.Path) {
	if c.NonEmpty(at.Child("name"), container.Name) {
		c.label(at.Child("name"), container.Name)
	}
	c.NonEmpty(at.Child("image"), container.Image)
	kinds.RequiredListed(&c.Faults, at.Child("terminationMessagePolicy"), container.TerminationMessagePolicy,
		corev1.TerminationMessageReadFile, corev1.TerminationMessageFallbackToLogsOnError)
	c.checkPorts(container.Ports, at.Child("ports"))
	c.checkEnv(container.Env, at.Child("env"))
	c.checkEnvFrom(container.EnvFrom, at.Child("envFrom"))
	c.checkMounts(container, at.Child("volumeMounts"))
	c.checkDevices(container, at.Child("volumeDevices"))
	c.pullPolicy(at.Child("imagePullPolicy"), container.ImagePullPolicy)
	c.Join(validateResources(&container.Resources, ofContainer, c.claims, at.Child("resources")))
	c.checkResizePolicy(container.ResizePolicy, at.Child("resizePolicy"))
	c.checkSecurityContext(container.SecurityContext, at.Child("securityContext"))
}

func (c *podCheck) pullPolicy(at *kinds.Path, policy corev1.PullPolicy) {
	kinds.RequiredOneOf(&c.Faults, at, policy, corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)
}

func (c *podCheck) checkPorts(ports []corev1.ContainerPort, at *kinds.Path) {
	names := sets.New[string]()
	for i, port := range ports {
		here := at.Index(i)
		if port.Name != "" {
			messages := validation.IsValidPortName(port.Name)
			c.Each(here.Child("name"), port.Name, messages)
			if len(messages) == 0 && names.Has(port.Name) {
				c.Duplicate(here.Child("name"), port.Name)
			}
			names.Insert(port.Name)
		}
		if port.ContainerPort == 0 {
			c.Required(here.Child("containerPort"), "")
		} else {
			c.Each(here.Child("containerPort"), port.ContainerPort, validation.IsValidPortNum(int(port.ContainerPort)))
		}
		if port.HostPort != 0 {
			c.Each(here.Child("hostPort"), port.HostPort, validation.IsValidPortNum(int(port.HostPort)))
		}
		kinds.RequiredOneOf(&c.Faults, here.Child("protocol"), port.Protocol, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
	}
}

// uniqueHostPorts refuses a port of the host that is taken already.
func (c *podCheck) uniqueHostPorts(taken sets.Set[string], ports []corev1.ContainerPort, at *kinds.Path) {
	for i, port := range ports {
		if port.HostPort == 0 {
			continue
		}
		key := fmt.Sprintf("%s/%s/%d", port.Protocol, port.HostIP, port.HostPort)
		if taken.Has(key) {
			c.Duplicate(at.Index(i).Child("hostPort"), key)
		}
		taken.Insert(key)
	}
}

// checkHostPorts: in the host's network a port cannot be two numbers. A
// template may leave the host's port out; the pod made of it gets it.
func (c *podCheck) checkHostPorts(at *kinds.Path) {
	if !c.spec.HostNetwork {
		return
	}
	for i := range c.spec.Containers {
		for j, port := range c.spec.Containers[i].Ports {
			if (c.meta != nil || port.HostPort != 0) && port.HostPort != port.ContainerPort {
				c.Invalid(at.Index(i).Child("ports").Index(j).Child("hostPort"), port.HostPort,
					"must match `containerPort` when `hostNetwork` is true")
			}
		}
	}
}

func (c *podCheck) checkResizePolicy(policies []corev1.ContainerResizePolicy, at *kinds.Path) {
	seen := sets.New[corev1.ResourceName]()
	for i, policy := range policies {
		if seen.Has(policy.ResourceName) {
			c.Duplicate(at.Index(i), policy.ResourceName)
		}
		seen.Insert(policy.ResourceName)
		kinds.RequiredOneOf(&c.Faults, at, policy.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		kinds.RequiredOneOf(&c.Faults, at, policy.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if c.spec.RestartPolicy == corev1.RestartPolicyNever && policy.RestartPolicy != corev1.NotRequired {
			c.Invalid(at, policy.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}

// checkInitRestarts looks at the rules of init containers only beside a policy.
func (c *podCheck) checkInitRestarts(container *corev1.Container, at *kinds.Path) {
	switch {
	case container.RestartPolicy != nil:
		c.checkRestartPolicy(container.RestartPolicy, container.RestartPolicyRules, at)
	case len(container.RestartPolicyRules) > 0:
		c.Required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
	}
}

func (c *podCheck) checkRestartPolicy(policy *corev1.ContainerRestartPolicy, rules []corev1.ContainerRestartRule, at *kinds.Path) {
	switch {
	case policy == nil && len(rules) == 0:
		return
	case policy == nil:
		c.Required(at.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
	default:
		kinds.OneOf(&c.Faults, at.Child("restartPolicy"), *policy, corev1.ContainerRestartPolicyAlways,
			corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	if len(rules) > maxRestartRules {
		c.TooMany(at.Child("restartPolicyRules"), len(rules), maxRestartRules)
	}
	for i, rule := range rules {
		here := at.Child("restartPolicyRules").Index(i)
		kinds.OneOf(&c.Faults, here.Child("action"), rule.Action, corev1.ContainerRestartRuleActionRestart,
			corev1.ContainerRestartRuleActionRestartAllContainers)
		if rule.ExitCodes == nil {
			c.Required(here.Child("exitCodes"), "must be specified")
			continue
		}
		kinds.OneOf(&c.Faults, here.Child("exitCodes").Child("operator"), rule.ExitCodes.Operator,
			corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
		if len(rule.ExitCodes.Values) > maxExitCodes {
			c.TooMany(here.Child("exitCodes").Child("values"), len(rule.ExitCodes.Values), maxExitCodes)
		}
	}
}
