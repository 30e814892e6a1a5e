package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// filesAnnotation has sampan's own engine begin a container with what the one before it
// has written: of the same pod, or of the pod whose place this one takes.
const filesAnnotation = "sampan.dev/files"

// imageAnnotation is the name of the image that a container was made of, when that is
// another's by now and the pod's container has the image by its ID.
const imageAnnotation = "sampan.dev/image"

// keepFiles has the pod's containers go on with each other's files.
func keepFiles(pod *corev1.Pod) { pod.Annotations[filesAnnotation] = rand.Text() }

// keptPrefix begins the keys of what a pod keeps.
func keptPrefix(pod *corev1.Pod) (string, bool) {
	word := pod.Annotations[filesAnnotation]
	return image.KeptPrefix(pod.Namespace, pod.Name, word), word != ""
}

// snapshotOf is the key of the snapshot that a pod's first container writes to.
func snapshotOf(pod *corev1.Pod) (string, bool) {
	if prefix, ok := keptPrefix(pod); ok {
		return prefix + pod.Spec.Containers[0].Name, true
	}
	return ownContainer(pod)
}

// renewal puts new pods in the place of others.
type renewal struct {
	*server
	settings *Settings
	// fresh: without what the others have written.
	fresh  bool
	errOut io.Writer
	// word is whose hold it is: another start of the same container has its own.
	word string
}

// hold gives the pod that is to take the place of another, with the same image and, unless
// it is to begin fresh, with its files. They are kept from then on, until it begins.
func (r *renewal) hold(old *corev1.Pod) (next *corev1.Pod, err error) {
	next = afresh(old)
	prefix, keeps := keptPrefix(old)
	switch {
	case r.fresh && keeps:
		keepFiles(next) // another word: the files go with the old pod
		if name := next.Annotations[imageAnnotation]; name != "" {
			next.Spec.Containers[0].Image = name
			delete(next.Annotations, imageAnnotation)
		}
		return next, nil
	case r.fresh || !look(old).started:
		return next, nil
	case !keeps:
		fmt.Fprintf(r.errOut, "sampan: %s begins without what it has written: its node has not been asked to keep it\n", old.Name)
		return next, nil
	}
	key := prefix + old.Spec.Containers[0].Name
	store, err := r.settings.images()
	if err == nil {
		r.word = rand.Text()
		err = store.Hold(key, r.word)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: what it has written is not on this machine, or no more; --fresh begins without it", old.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: keep what it has written: %w", old.Name, err)
	}
	if err := sameImage(store, key, next); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", old.Name, err), store.LetGo(key, r.word))
	}
	return next, nil
}

// sameImage has a pod's container be of the image that its files stand on, whatever its
// name means by now.
func sameImage(store *image.Store, key string, pod *corev1.Pod) error {
	c := &pod.Spec.Containers[0]
	if c.ImagePullPolicy == corev1.PullAlways {
		c.ImagePullPolicy = corev1.PullIfNotPresent
	}
	was, err := store.KeptImage(key)
	if err != nil {
		return fmt.Errorf("the image that it was made of: %w; --fresh begins with %s as it is now", err, c.Image)
	}
	if named, err := store.Get(c.Image); err != nil || named.Manifest != was.Manifest {
		pod.Annotations[imageAnnotation], c.Image = c.Image, was.ID
	}
	return nil
}

// letGo gives up what hold has kept, when nothing has taken the old pod's place.
func (r *renewal) letGo(old *corev1.Pod) error {
	prefix, keeps := keptPrefix(old)
	if !keeps || r.word == "" {
		return nil
	}
	store, err := r.settings.images()
	if err != nil {
		return err
	}
	return store.LetGo(prefix+old.Spec.Containers[0].Name, r.word)
}

// dropKept releases what a pod that has gone has kept, where its node has not done so.
func (s *Settings) dropKept(pod *corev1.Pod) error {
	if err := s.dropPast(pod); err != nil {
		return err
	}
	prefix, ok := keptPrefix(pod)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	store, err := s.images()
	if err != nil {
		return err
	}
	return store.ReleaseKept(prefix)
}

// pruneKept releases what pods have kept of which there are none.
func (s *Settings) pruneKept(ctx context.Context, server *server) error {
	if os.Geteuid() != 0 {
		return nil
	}
	store, err := s.images()
	if err != nil {
		return err
	}
	before := time.Now() // who comes later is not in the list
	pods, err := server.pods(ctx)
	if err != nil {
		return err
	}
	if err := s.prunePast(pods, before.Add(-startWait)); err != nil {
		return err
	}
	var wanted []string
	for _, pod := range pods {
		if prefix, ok := keptPrefix(pod); ok {
			wanted = append(wanted, prefix)
		}
	}
	return store.PruneKept(before.Add(-startWait), func(key string) bool {
		for _, prefix := range wanted {
			if strings.HasPrefix(key, prefix) {
				return true
			}
		}
		return false
	})
}
