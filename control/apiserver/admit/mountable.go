package admit

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// enforceMountable is the annotation by which an account says that its pods may use
// no other secrets than those that it lists.
const enforceMountable = "kubernetes.io/enforce-mountable-secrets"

func enforces(account *corev1.ServiceAccount) bool {
	on, err := strconv.ParseBool(account.Annotations[enforceMountable])
	return err == nil && on
}

// mayMount refuses a pod that names a secret which its account does not list, if the
// account wants that.
func mayMount(account *corev1.ServiceAccount, pod *corev1.Pod) error {
	if !enforces(account) {
		return nil
	}
	for i := range pod.Spec.Volumes {
		if s := pod.Spec.Volumes[i].Secret; s != nil && !lists(account, s.SecretName) {
			return fmt.Errorf("volume with secret.secretName=%q is not allowed because service account %s does not reference that secret", s.SecretName, account.Name)
		}
	}
	for i := range pod.Spec.InitContainers {
		if err := mayRead(account, "init container", &pod.Spec.InitContainers[i]); err != nil {
			return err
		}
	}
	for i := range pod.Spec.Containers {
		if err := mayRead(account, "container", &pod.Spec.Containers[i]); err != nil {
			return err
		}
	}
	for i, s := range pod.Spec.ImagePullSecrets {
		if !slices.Contains(account.ImagePullSecrets, s) {
			return fmt.Errorf("imagePullSecrets[%d].name=%q is not allowed because service account %s does not reference that imagePullSecret", i, s.Name, account.Name)
		}
	}
	return nil
}

// mayDebug is the same for containers that join a pod later.
func (r serviceAccounts) mayDebug(ctx context.Context, namespace string, pod *corev1.Pod) error {
	if mirror(pod) {
		return nil
	}
	if pod.Spec.ServiceAccountName == "" {
		return fmt.Errorf("no service account specified for pod %s/%s", namespace, pod.Name)
	}
	account, err := r.account(ctx, namespace, pod.Spec.ServiceAccountName)
	if err != nil || !enforces(account) {
		return err
	}
	for i := range pod.Spec.EphemeralContainers {
		c := corev1.Container(pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if err := mayRead(account, "ephemeral container", &c); err != nil {
			return err
		}
	}
	return nil
}

// mayRead judges the environment of a container, which is called what.
func mayRead(account *corev1.ServiceAccount, what string, c *corev1.Container) error {
	for _, e := range c.Env {
		if e.ValueFrom == nil || e.ValueFrom.SecretKeyRef == nil {
			continue
		}
		if name := e.ValueFrom.SecretKeyRef.Name; !lists(account, name) {
			return fmt.Errorf("%s %s with envVar %s referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", what, c.Name, e.Name, name, account.Name)
		}
	}
	for _, e := range c.EnvFrom {
		if e.SecretRef != nil && !lists(account, e.SecretRef.Name) {
			return fmt.Errorf("%s %s with envFrom referencing secret.secretName=%q is not allowed because service account %s does not reference that secret", what, c.Name, e.SecretRef.Name, account.Name)
		}
	}
	return nil
}

// lists says whether the account lists a secret.
func lists(account *corev1.ServiceAccount, secret string) bool {
	return slices.ContainsFunc(account.Secrets, func(r corev1.ObjectReference) bool { return r.Name == secret })
}
