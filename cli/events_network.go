package cli

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/client"
)

// ofNetwork is something that has happened to a network.
func ofNetwork(n *corev1.Service, at time.Time, action string) happening {
	h := happening{Type: "network", Action: action, Scope: "local", Time: at.Unix(), TimeNano: at.UnixNano(), at: at}
	h.Actor.ID, h.Actor.Attributes = digits(string(n.UID)), map[string]string{"name": n.Labels[networkLabel], "type": bridgeNetwork}
	for name, value := range labelsOn(n) {
		h.Actor.Attributes[name] = value
	}
	return h
}

// watchNetworks is what has happened to networks since they were last seen, and a watch of
// them from there on. Who may not see them hears of containers alone.
func (w *eventWriter) watchNetworks(ctx context.Context, s *server, namespace string) (watch.Interface, []happening, error) {
	opts := metav1.ListOptions{LabelSelector: networkLabel}
	made, rev, err := client.Services.List(context.WithoutCancel(ctx), s, namespace, opts)
	if apierrors.IsForbidden(err) {
		return watch.NewProxyWatcher(make(chan watch.Event)), nil, nil
	}
	if err != nil {
		return nil, nil, unanswered(err)
	}
	past := w.allNetworks(made)
	opts.ResourceVersion = rev
	stream, err := client.Services.Watch(ctx, s, namespace, opts)
	if err != nil && ctx.Err() != nil {
		return watch.NewProxyWatcher(make(chan watch.Event)), past, nil // the past is all that is wanted
	}
	return stream, past, err
}

// allNetworks takes a list: those that are new have been made, and those that are not there
// any more have gone.
func (w *eventWriter) allNetworks(made []*corev1.Service) []happening {
	now := map[string]*corev1.Service{}
	var all []happening
	for _, n := range made {
		uid := string(n.UID)
		if now[uid] = n; w.networks[uid] == nil {
			all = append(all, ofNetwork(n, n.CreationTimestamp.Time, "create"))
		}
	}
	for uid, n := range w.networks {
		if now[uid] == nil {
			all = append(all, ofNetwork(n, time.Now(), "destroy"))
		}
	}
	w.networks = now
	return all
}

// network tells what has just happened to one.
func (w *eventWriter) network(e watch.Event) error {
	n, ok := e.Object.(*corev1.Service)
	if !ok {
		return nil
	}
	uid := string(n.UID)
	switch known := w.networks[uid] != nil; {
	case e.Type == watch.Deleted:
		delete(w.networks, uid)
		return w.tell([]happening{ofNetwork(n, time.Now(), "destroy")})
	case !known:
		w.networks[uid] = n
		return w.tell([]happening{ofNetwork(n, n.CreationTimestamp.Time, "create")})
	}
	return nil
}
