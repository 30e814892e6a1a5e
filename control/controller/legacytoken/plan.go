package legacytoken

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// What upstream calls the marks of a token's secret, and how dates in them look.
const (
	lastUsed     = "kubernetes.io/legacy-token-last-used"
	invalidSince = "kubernetes.io/legacy-token-invalid-since"
)

// step is one thing to do to a secret, and why.
type step struct {
	secret *corev1.Secret
	// remove deletes it; else it is marked as invalid since today.
	remove bool
	reason string
}

// picture is what decisions are made of.
type picture struct {
	now time.Time
	// tracked is since when the use of tokens is surely noted.
	tracked time.Time
	secrets []*corev1.Secret
	// account is the service account of a namespace, if there is one.
	account func(namespace, name string) (*corev1.ServiceAccount, bool)
	// mounted says whether a pod of the namespace refers to the secret.
	mounted func(namespace, name string) bool
}

// plan finds the tokens that nobody has used for as long as Unused: they are marked
// first, so that whoever still wants one hears of it, and deleted when they have
// been marked for as long again. Only tokens that were made for an account without
// being asked for are meant: the account refers to their secrets.
func plan(p picture) []step {
	now := p.now.UTC()
	if now.Before(p.tracked.Add(Unused)) {
		return nil // not watched for long enough
	}
	before := now.Add(-Unused)
	var steps []step
	for _, s := range p.secrets {
		switch {
		case s.Type != corev1.SecretTypeServiceAccountToken, s.DeletionTimestamp != nil,
			!s.CreationTimestamp.Time.Before(before), inUse(s, before), !p.automatic(s), p.mounted(s.Namespace, s.Name):
			continue
		}
		since := s.Labels[invalidSince]
		switch {
		case !isDate(since):
			steps = append(steps, step{secret: s, reason: "not used for a year"})
		case since < before.Format(time.DateOnly):
			steps = append(steps, step{secret: s, remove: true, reason: "invalid since " + since})
		}
	}
	return steps
}

// inUse says whether the token was used since a day, or whether that cannot be told.
func inUse(s *corev1.Secret, since time.Time) bool {
	last, marked := s.Labels[lastUsed]
	return marked && (!isDate(last) || last >= since.Format(time.DateOnly))
}

// automatic says whether the token was made because there is an account.
func (p picture) automatic(s *corev1.Secret) bool {
	name, uid := s.Annotations[corev1.ServiceAccountNameKey], s.Annotations[corev1.ServiceAccountUIDKey]
	if name == "" {
		return false
	}
	a, ok := p.account(s.Namespace, name)
	if !ok || uid != "" && uid != string(a.UID) {
		return false
	}
	return slices.ContainsFunc(a.Secrets, func(r corev1.ObjectReference) bool { return r.Name == s.Name })
}

func isDate(text string) bool {
	_, err := time.Parse(time.DateOnly, text)
	return err == nil
}

// secretsOf are the names of the secrets that a pod refers to.
func secretsOf(pod *corev1.Pod, into map[string]bool) {
	spec := &pod.Spec
	for _, r := range spec.ImagePullSecrets {
		into[r.Name] = true
	}
	for i := range spec.Volumes {
		inVolume(&spec.Volumes[i].VolumeSource, into)
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		inEnv(c.Env, c.EnvFrom, into)
	}
	for _, c := range spec.EphemeralContainers {
		inEnv(c.Env, c.EnvFrom, into)
	}
}

func inVolume(v *corev1.VolumeSource, into map[string]bool) {
	switch {
	case v.Secret != nil:
		into[v.Secret.SecretName] = true
	case v.AzureFile != nil:
		into[v.AzureFile.SecretName] = true
	case v.CephFS != nil && v.CephFS.SecretRef != nil:
		into[v.CephFS.SecretRef.Name] = true
	case v.Cinder != nil && v.Cinder.SecretRef != nil:
		into[v.Cinder.SecretRef.Name] = true
	case v.FlexVolume != nil && v.FlexVolume.SecretRef != nil:
		into[v.FlexVolume.SecretRef.Name] = true
	case v.RBD != nil && v.RBD.SecretRef != nil:
		into[v.RBD.SecretRef.Name] = true
	case v.ScaleIO != nil && v.ScaleIO.SecretRef != nil:
		into[v.ScaleIO.SecretRef.Name] = true
	case v.ISCSI != nil && v.ISCSI.SecretRef != nil:
		into[v.ISCSI.SecretRef.Name] = true
	case v.StorageOS != nil && v.StorageOS.SecretRef != nil:
		into[v.StorageOS.SecretRef.Name] = true
	case v.CSI != nil && v.CSI.NodePublishSecretRef != nil:
		into[v.CSI.NodePublishSecretRef.Name] = true
	case v.Projected != nil:
		for _, part := range v.Projected.Sources {
			if part.Secret != nil {
				into[part.Secret.Name] = true
			}
		}
	}
}

func inEnv(env []corev1.EnvVar, from []corev1.EnvFromSource, into map[string]bool) {
	for _, e := range env {
		if e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			into[e.ValueFrom.SecretKeyRef.Name] = true
		}
	}
	for _, f := range from {
		if f.SecretRef != nil {
			into[f.SecretRef.Name] = true
		}
	}
}
