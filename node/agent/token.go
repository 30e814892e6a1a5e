package agent

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/volume"
)

// mintToken asks the API server for a service-account token that ends with the
// pod.
func (a *Agent) mintToken(ctx context.Context, pod *corev1.Pod, r volume.TokenRequest) (string, time.Time, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &r.Seconds}}
	if r.Audience != "" {
		request.Spec.Audiences = []string{r.Audience}
	}
	made, err := a.bound(ctx, pod, pod.Spec.ServiceAccountName, request)
	if err != nil {
		return "", time.Time{}, err
	}
	return made.Status.Token, made.Status.ExpirationTimestamp.Time, nil
}

// bound has a token made for an account of the pod's namespace, that ends with the pod.
func (a *Agent) bound(ctx context.Context, pod *corev1.Pod, account string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	at := target.Of(client.ServiceAccounts.GroupVersionResource, pod.Namespace).Object(account).Sub("token")
	got, err := a.cfg.Transport.Create(ctx, at, request, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	made, ok := got.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, fmt.Errorf("server answered with %T, want a TokenRequest", got)
	}
	return made, nil
}
