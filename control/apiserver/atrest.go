package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/atrest"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/kinds"
)

// secrets is what the cluster's own keys seal.
var secrets = schema.GroupResource{Resource: "secrets"}

// transformer is how the stored bytes of a kind are sealed: as the encryption
// configuration says, and Secrets that it does not name with the cluster's keys.
func (s *Server) transformer(k *kinds.Kind) resource.Transformer {
	gr := schema.GroupResource{Group: k.GVK.Group, Resource: k.Resource}
	own := s.cfg.Ring != nil && gr == secrets
	switch {
	case s.cfg.Encryption != nil && own:
		return sealedTwice{kept: s.cfg.Encryption.For(gr), ring: s.cfg.Ring}
	case s.cfg.Encryption != nil:
		return s.cfg.Encryption.For(gr)
	case own:
		return s.cfg.Ring
	}
	return nil
}

// sealedTwice are Secrets of a cluster that has keys of its own and an encryption
// configuration: where that names Secrets it seals them, and what the cluster's
// keys have sealed before still opens.
type sealedTwice struct {
	kept *atrest.Kept
	ring *atrest.Ring
}

func (t sealedTwice) Seal(key string, plain []byte) ([]byte, error) {
	if t.kept.Named() {
		return t.kept.Seal(key, plain)
	}
	return t.ring.Seal(key, plain)
}

func (t sealedTwice) Open(key string, sealed []byte) (plain []byte, stale bool, err error) {
	if !t.kept.Named() {
		return t.ring.Open(key, sealed)
	}
	if plain, stale, err = t.kept.Open(key, sealed); err == nil {
		return plain, stale, nil
	}
	if mine, _, other := t.ring.Open(key, sealed); other == nil {
		return mine, true, nil
	}
	return nil, false, err
}

// newRotation changes the cluster's keys; nil where it has none.
func (s *Server) newRotation() *atrest.Rotation {
	if s.cfg.Ring == nil || !s.served(corev1.SchemeGroupVersion.WithResource(secrets.Resource)) {
		return nil
	}
	return atrest.NewRotation(atrest.RotationConfig{
		Ring: s.cfg.Ring, Store: s.cfg.Store, Prefix: "/registry/secrets/", Rewrite: s.rewriteSecret, Log: s.cfg.Log})
}

// rewriteSecret changes nothing of a Secret: the handler writes it again because
// it is not sealed with the key in use.
func (s *Server) rewriteSecret(ctx context.Context, key string) error {
	namespace, name, _ := strings.Cut(key, "/")
	at := target.Of(corev1.SchemeGroupVersion.WithResource(secrets.Resource), namespace).Object(name)
	_, err := s.own.Patch(ctx, at, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// serveRotation serves the rotation, where the cluster's keys seal the Secrets.
func (s *Server) serveRotation(w http.ResponseWriter, r *http.Request) {
	if s.cfg.Encryption != nil && s.cfg.Encryption.For(secrets).Named() && r.Method == http.MethodPost {
		refuse(w, r, apierrors.NewConflict(secrets, "", fmt.Errorf("the encryption configuration seals them: "+
			"change its keys, and then rewrite them with a StorageVersionMigration")))
		return
	}
	s.rotation.ServeHTTP(w, r)
}

// keepSealed looks after plugins, files and rotations until ctx ends.
func (s *Server) keepSealed(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if s.cfg.Encryption != nil {
		g.Go(func() error { return s.cfg.Encryption.Run(ctx) })
	}
	if s.rotation != nil {
		g.Go(func() error {
			select {
			case <-s.ready:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			return s.rotation.Run(ctx)
		})
	}
	return g.Wait()
}
