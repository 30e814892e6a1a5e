package bootstraptoken

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/informer"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/reconcile"
)

const (
	clusterInfo     = "cluster-info"
	kubeconfigKey   = "kubeconfig"
	signaturePrefix = "jws-kubeconfig-"
)

// Signer signs cluster-info. It has one key.
type Signer struct {
	transport client.Transport
	loop      *reconcile.Loop
	secrets   *informer.Informer[*corev1.Secret]
	configs   *informer.Informer[*corev1.ConfigMap]
}

// NewSigner makes the controller.
func NewSigner(cfg controller.Config) (*Signer, error) {
	if err := cfg.Valid(); err != nil {
		return nil, err
	}
	s := &Signer{
		transport: cfg.Transport("bootstrap-signer"),
		secrets:   controller.Mirror(cfg.Mirrors, client.Secrets),
		configs:   controller.Mirror(cfg.Mirrors, client.ConfigMaps),
	}
	s.loop = reconcile.NewLoop(s, reconcile.Config{Log: cfg.Log, Workers: 1, Synced: cfg.Mirrors.Synced(s.Reads()...)})
	s.secrets.Subscribe(func(e informer.Event[*corev1.Secret]) {
		if isToken(e.Object()) {
			s.loop.Enqueue(reconcile.Key{})
		}
	})
	s.configs.Subscribe(func(e informer.Event[*corev1.ConfigMap]) {
		if o := e.Object(); o.Namespace == metav1.NamespacePublic && o.Name == clusterInfo {
			s.loop.Enqueue(reconcile.Key{})
		}
	})
	return s, nil
}

// Name implements reconcile.Reconciler.
func (*Signer) Name() string { return "bootstrapsigner" }

// Reads implements reconcile.Reconciler.
func (*Signer) Reads() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{client.Secrets.GroupVersionResource, client.ConfigMaps.GroupVersionResource}
}

// Writes implements reconcile.Reconciler.
func (*Signer) Writes() []reconcile.Write {
	return []reconcile.Write{{Resource: client.ConfigMaps.GroupVersionResource, Part: "data[" + clusterInfo + "]"}}
}

// Run implements controller.Controller.
func (s *Signer) Run(ctx context.Context) error { return s.loop.Run(ctx) }

// Reconcile implements reconcile.Reconciler.
func (s *Signer) Reconcile(ctx context.Context, _ reconcile.Key) (time.Duration, error) {
	have, ok := s.configs.Get(metav1.NamespacePublic, clusterInfo)
	if !ok {
		return 0, nil
	}
	content, ok := have.Data[kubeconfigKey]
	if !ok {
		return 0, nil
	}
	data := maps.Clone(have.Data)
	maps.DeleteFunc(data, func(key, _ string) bool { return strings.HasPrefix(key, signaturePrefix) })
	for _, secret := range s.secrets.List() {
		if !isToken(secret) {
			continue
		}
		id, word, ok := signingToken(secret, time.Now())
		if !ok {
			continue
		}
		signature, err := detached(content, id, word)
		if err != nil {
			return 0, err
		}
		data[signaturePrefix+id] = signature
	}
	if maps.Equal(data, have.Data) {
		return 0, nil
	}
	next := have.DeepCopy()
	next.Data = data
	if _, err := client.ConfigMaps.Update(ctx, s.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("sign %q: %w", clusterInfo, err)
	}
	return 0, nil
}
