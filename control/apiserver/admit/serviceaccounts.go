package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/rand"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
)

// Facts that clients and images rely on.
const (
	tokenMountPath    = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolumePrefix = "kube-api-access-"
	tokenSeconds      = 3607 // an odd number, by which upstream tells its own tokens
	rootCAConfigMap   = "kube-root-ca.crt"
)

// How long a pod waits for the default account of a namespace made a moment ago.
const (
	defaultAccountTries = 10
	defaultAccountWait  = 150 * time.Millisecond
)

// serviceAccounts gives every pod its account, the account's token and its pull
// secrets.
type serviceAccounts struct {
	objects Reader
}

func (r serviceAccounts) Admit(ctx context.Context, a *resource.Attributes) error {
	pod, ok := newPod(a)
	if !ok {
		return nil
	}
	if mirror(pod) {
		return validMirror(pod) // before the kind's own rules have their say
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = pod.Spec.DeprecatedServiceAccount
	}
	if pod.Spec.ServiceAccountName == "" {
		pod.Spec.ServiceAccountName = "default"
	}
	pod.Spec.DeprecatedServiceAccount = pod.Spec.ServiceAccountName
	account, err := r.account(ctx, a.Target.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	if automounts(account, pod) {
		mountToken(pod)
	}
	if len(pod.Spec.ImagePullSecrets) == 0 {
		pod.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
	}
	return mayMount(account, pod)
}

func (r serviceAccounts) Validate(ctx context.Context, a *resource.Attributes) error {
	if pod, ok := a.Object.(*corev1.Pod); ok && a.Operation == resource.OpUpdate && a.Target.Subresource == "ephemeralcontainers" {
		return r.mayDebug(ctx, a.Target.Namespace, pod)
	}
	pod, ok := newPod(a)
	if !ok {
		return nil
	}
	if mirror(pod) {
		return validMirror(pod)
	}
	if pod.Spec.ServiceAccountName == "" {
		return fmt.Errorf("no service account specified for pod %s/%s", a.Target.Namespace, pod.Name)
	}
	account, err := r.account(ctx, a.Target.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return err
	}
	return mayMount(account, pod)
}

// account finds the account; the default one of a new namespace is made by a
// controller, for which it waits a little.
func (r serviceAccounts) account(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
	tries := 1
	if name == "default" {
		tries = defaultAccountTries
	}
	for try := 1; ; try++ {
		obj, err := cached(ctx, r.objects, core("serviceaccounts", namespace, name))
		if account, ok := obj.(*corev1.ServiceAccount); ok && err == nil {
			return account, nil
		}
		if !apierrors.IsNotFound(err) || try == tries {
			return nil, refuse("error looking up service account %s/%s: %w", namespace, name, asListed(err, "serviceaccount", name))
		}
		timer := time.NewTimer(defaultAccountWait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// refuse makes a plain error, which the handler turns into 403: the cause's own
// status must not become the answer's.
func refuse(format string, args ...any) error {
	return errors.New(fmt.Errorf(format, args...).Error())
}

func automounts(account *corev1.ServiceAccount, pod *corev1.Pod) bool {
	switch {
	case pod.Spec.AutomountServiceAccountToken != nil:
		return *pod.Spec.AutomountServiceAccountToken
	case account.AutomountServiceAccountToken != nil:
		return *account.AutomountServiceAccountToken
	}
	return true
}

// mountToken mounts the token in every container that has nothing there yet.
func mountToken(pod *corev1.Pod) {
	volume, exists := tokenVolumePrefix+rand.String(5), false
	for _, v := range pod.Spec.Volumes {
		if strings.HasPrefix(v.Name, tokenVolumePrefix) {
			volume, exists = v.Name, true
			break
		}
	}
	mount := corev1.VolumeMount{Name: volume, ReadOnly: true, MountPath: tokenMountPath}
	needed := false
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			if !slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenMountPath }) {
				c.VolumeMounts = append(c.VolumeMounts, mount)
				needed = true
			}
		}
	}
	if needed && !exists {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: volume, VolumeSource: corev1.VolumeSource{Projected: tokenSources()}})
	}
}

// tokenSources is what client libraries look for: token, ca.crt, namespace.
func tokenSources() *corev1.ProjectedVolumeSource {
	mode, seconds := corev1.ProjectedVolumeSourceDefaultMode, int64(tokenSeconds)
	return &corev1.ProjectedVolumeSource{DefaultMode: &mode, Sources: []corev1.VolumeProjection{
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: &seconds}},
		{ConfigMap: &corev1.ConfigMapProjection{
			LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
			Items:                []corev1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
		}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
			Path:     "namespace",
			FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
		}}}},
	}}
}

// mirror: the pod shows what a node runs by itself.
func mirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[corev1.MirrorPodAnnotationKey]
	return ok
}

// validMirror: what a node runs by itself must not reach for the cluster's
// secrets.
func validMirror(pod *corev1.Pod) error {
	if pod.Spec.ServiceAccountName != "" {
		return errors.New("a mirror pod may not reference service accounts")
	}
	if refersTo(pod).secrets {
		return errors.New("a mirror pod may not reference secrets")
	}
	for _, v := range pod.Spec.Volumes {
		if v.Projected == nil {
			continue
		}
		for _, s := range v.Projected.Sources {
			if s.ServiceAccountToken != nil {
				return errors.New("a mirror pod may not use ServiceAccountToken volume projections")
			}
		}
	}
	return nil
}
