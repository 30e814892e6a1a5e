package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// security are privileges, capabilities, sysctls and groups. The user is not here:
// its name may be one of the image.
func (b *podBuilder) security() error {
	sc := b.c.SecurityContext
	if b.flags.privileged {
		sc.Privileged = &b.flags.privileged
	}
	if b.flags.readOnly {
		sc.ReadOnlyRootFilesystem = &b.flags.readOnly
	}
	if err := b.options(); err != nil {
		return err
	}
	if len(b.flags.capAdd)+len(b.flags.capDrop) > 0 {
		sc.Capabilities = &corev1.Capabilities{Add: capabilities(b.flags.capAdd), Drop: capabilities(b.flags.capDrop)}
	}
	for _, text := range b.flags.sysctl {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return fmt.Errorf("--sysctl %q: want NAME=VALUE", text)
		}
		b.pod.Spec.SecurityContext.Sysctls = append(b.pod.Spec.SecurityContext.Sysctls, corev1.Sysctl{Name: name, Value: value})
	}
	for _, text := range b.flags.groups {
		id, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return fmt.Errorf("--group-add %q: want a number", text)
		}
		b.pod.Spec.SecurityContext.SupplementalGroups = append(b.pod.Spec.SecurityContext.SupplementalGroups, int64(id)) //nolint:gosec // 31 bits
	}
	return nil
}

// options reads --security-opt, and --init: the process that a pod's containers share
// when they share process IDs does what docker's does.
func (b *podBuilder) options() error {
	if b.flags.init {
		b.pod.Spec.ShareProcessNamespace = &b.flags.init
	}
	for _, text := range b.flags.securityOpts {
		name, value, said := strings.Cut(text, "=")
		if !said {
			name, value, _ = strings.Cut(text, ":")
		}
		if err := b.option(name, value); err != nil {
			return fmt.Errorf("--security-opt %q: %w", text, err)
		}
	}
	return nil
}

// option is one of --security-opt.
func (b *podBuilder) option(name, value string) error {
	sc := b.c.SecurityContext
	switch name + "=" + value {
	case "no-new-privileges=", "no-new-privileges=true":
		sc.AllowPrivilegeEscalation = new(bool)
		return nil
	case "no-new-privileges=false", "seccomp=builtin":
		return nil
	case "seccomp=unconfined":
		sc.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}
		return nil
	case "apparmor=unconfined":
		sc.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeUnconfined}
		return nil
	case "label=disable": // a pod can't ask for none, but for the type that may do all
		return b.label("type:spc_t")
	}
	switch name {
	case "apparmor":
		sc.AppArmorProfile = &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeLocalhost, LocalhostProfile: &value}
		return nil
	case "seccomp":
		return errors.New("a pod names profiles that its node has, in seccomp below the kubelet's directory: say it in a manifest, as a seccompProfile of type Localhost, and sampan kubectl apply")
	case "label":
		return b.label(value)
	case "systempaths":
		if b.flags.privileged {
			return nil // it sees all of them anyway
		}
		return errors.New("a pod with this machine's users sees all of /proc only with --privileged")
	}
	return errors.New("want no-new-privileges, seccomp=unconfined, apparmor=PROFILE or label=KIND:VALUE")
}

// label is a part of an SELinux label.
func (b *podBuilder) label(text string) error {
	kind, value, ok := strings.Cut(text, ":")
	if b.c.SecurityContext.SELinuxOptions == nil {
		b.c.SecurityContext.SELinuxOptions = &corev1.SELinuxOptions{}
	}
	o := b.c.SecurityContext.SELinuxOptions
	parts := map[string]*string{"user": &o.User, "role": &o.Role, "type": &o.Type, "level": &o.Level}
	if parts[kind] == nil || !ok {
		return errors.New("want label=disable, or label=user|role|type|level:VALUE")
	}
	*parts[kind] = value
	return nil
}

func capabilities(names []string) []corev1.Capability {
	var all []corev1.Capability
	for _, n := range names {
		all = append(all, corev1.Capability(strings.TrimPrefix(strings.ToUpper(n), "CAP_")))
	}
	return all
}
