package apiserver

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sampan-dev/sampan/internal/target"
)

// The config map that says since when the use of tokens in secrets is tracked:
// their cleaner goes by it.
const (
	trackingName = "kube-apiserver-legacy-service-account-token-tracking"
	trackingKey  = "since"
	// trackAgain is how long a record that was deleted stays away: several servers,
	// of which some do not track, must not make and delete it in turns.
	trackAgain = 30 * time.Minute
	// watchAgain is how long a broken watch waits before it lists anew.
	watchAgain = time.Second
)

// trackTokens keeps the record until ctx ends.
func (s *Server) trackTokens(ctx context.Context) error {
	at := target.Of(corev1.SchemeGroupVersion.WithResource("configmaps"), metav1.NamespaceSystem)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var made time.Time
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait, err := s.trackOnce(ctx, at, &made)
		if err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("keep the record of token tracking", "error", err)
		}
		timer.Reset(wait)
	}
}

// trackOnce makes or mends the record and waits until something happens to it;
// again is how long to wait then. made is when the record was made here last.
func (s *Server) trackOnce(ctx context.Context, at target.Target, made *time.Time) (again time.Duration, err error) {
	only := fields.OneTermEqualSelector("metadata.name", trackingName).String()
	list, err := s.own.List(ctx, at, metav1.ListOptions{FieldSelector: only})
	if err != nil {
		return watchAgain, err
	}
	now := s.cfg.Now()
	today := map[string]string{trackingKey: now.UTC().Format(time.DateOnly)}
	all := list.(*corev1.ConfigMapList)
	switch {
	case len(all.Items) == 0:
		if left := trackAgain - now.Sub(*made); !made.IsZero() && left > 0 {
			return left, nil
		}
		_, err = s.own.Create(ctx, at, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: trackingName}, Data: today}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return watchAgain, err
		}
		*made = now
	case !isDate(all.Items[0].Data[trackingKey]):
		next := all.Items[0].DeepCopy()
		if next.Data == nil {
			next.Data = map[string]string{}
		}
		next.Data[trackingKey] = today[trackingKey]
		if _, err := s.own.Update(ctx, at.Object(trackingName), next, metav1.UpdateOptions{}); err != nil {
			return watchAgain, err
		}
	}
	w, err := s.own.Watch(ctx, at, metav1.ListOptions{FieldSelector: only, ResourceVersion: all.ResourceVersion})
	if err != nil {
		return watchAgain, err
	}
	defer w.Stop()
	for {
		select {
		case e, ok := <-w.ResultChan():
			c, is := e.Object.(*corev1.ConfigMap)
			if ok && is && e.Type != "DELETED" && isDate(c.Data[trackingKey]) {
				continue // as it should be
			}
			return 0, nil
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func isDate(text string) bool {
	_, err := time.Parse(time.DateOnly, text)
	return err == nil
}
