package authn

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/target"
)

// errInvalidated is what the bearer of an orphaned token is told.
var errInvalidated = errors.New("service account token has been invalidated")

// alive checks that what a token is bound to is still there, the same as it was.
// The node of a pod's token is only a note and is not checked.
func (t *Tokens) alive(ctx context.Context, b bound) error {
	err := t.same(ctx, object("serviceaccounts", b.Namespace, b.ServiceAccount.Name), b.ServiceAccount.UID)
	if err != nil {
		return fmt.Errorf("service account %q: %w", b.Namespace+"/"+b.ServiceAccount.Name, err)
	}
	if b.Pod != nil {
		return t.same(ctx, object("pods", b.Namespace, b.Pod.Name), b.Pod.UID)
	}
	if b.Node != nil {
		return t.same(ctx, object("nodes", "", b.Node.Name), b.Node.UID)
	}
	if b.Secret != nil {
		return t.same(ctx, object("secrets", b.Namespace, b.Secret.Name), b.Secret.UID)
	}
	return nil
}

func object(resource, namespace, name string) target.Target {
	return target.Of(corev1.SchemeGroupVersion.WithResource(resource), namespace).Object(name)
}

// same looks in the cache first and, when the object is missing there or is
// another, once more at the store: the cache may be a moment behind.
func (t *Tokens) same(ctx context.Context, at target.Target, uid string) error {
	if obj, ok := t.peek(at); ok && t.is(obj, uid) {
		return nil
	}
	if t.matches(ctx, at, uid, "0") || t.matches(ctx, at, uid, "") {
		return nil
	}
	return errInvalidated
}

// matches says whether the object has the uid and was not deleted more than
// leeway ago.
func (t *Tokens) matches(ctx context.Context, at target.Target, uid, version string) bool {
	obj, err := t.objects.Get(ctx, at, metav1.GetOptions{ResourceVersion: version})
	return err == nil && t.is(obj, uid)
}

// Peeker is a Reader that can look into its cache without any of what a request
// goes through. ok is false where there is nothing, or no cache yet.
type Peeker interface {
	Reader
	Peek(t target.Target) (obj runtime.Object, ok bool)
}

func (t *Tokens) peek(at target.Target) (runtime.Object, bool) {
	if p, ok := t.objects.(Peeker); ok {
		return p.Peek(at)
	}
	return nil, false
}

func (t *Tokens) is(obj runtime.Object, uid string) bool {
	m, err := meta.Accessor(obj)
	if err != nil || string(m.GetUID()) != uid {
		return false
	}
	deleted := m.GetDeletionTimestamp()
	return deleted == nil || !deleted.Time.Before(t.now().Add(-leeway))
}
