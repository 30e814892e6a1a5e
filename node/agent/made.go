package agent

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/backoff"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/node/volume"
)

// discardRetry spaces attempts to remove directories, and to tell of it.
var discardRetry = backoff.Policy{Min: 5 * time.Second, Max: 5 * time.Minute}

// made is what the agent does for volumes of the built-in storage class besides
// mounting them: it says on its Node where it makes their directories, and removes
// those that the class's controller names there.
type made struct {
	look chan struct{}
	// told are the volumes whose removal has failed, and the events say so.
	told map[string]string
}

// heed notes that the Node has changed, or that a pod has gone.
func (d *made) heed() {
	select {
	case d.look <- struct{}{}:
	default:
	}
}

// runMade keeps the Node's annotations true until ctx ends.
func (a *Agent) runMade(ctx context.Context) error {
	failures := 0
	var again <-chan time.Time
	for {
		select {
		case <-a.made.look:
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		again = nil
		node, ok := a.nodes.Get("", a.cfg.NodeName)
		if !ok {
			continue
		}
		removed, err := a.discardMade(ctx, listed(node.Annotations[volume.AnnRemove]))
		if err = errors.Join(err, a.tellMade(ctx, node, removed)); err == nil {
			failures = 0
			continue
		}
		failures++
		again = time.After(discardRetry.After(failures))
		a.cfg.Log.Warn("directories of volumes are not all removed; trying again", "err", err)
	}
}

// discardMade removes directories and says which are gone. Of one that pods use
// nothing is said: the end of a pod brings it back.
func (a *Agent) discardMade(ctx context.Context, names []string) (removed []string, failed error) {
	for _, name := range names {
		err := a.volumes.Discard(ctx, name)
		switch {
		case err == nil:
			removed = append(removed, name)
			delete(a.made.told, name)
		case errors.Is(err, volume.ErrInUse):
		default:
			failed = errors.Join(failed, err)
			if a.made.told[name] != err.Error() && ctx.Err() == nil {
				a.made.told[name] = err.Error()
				a.events.EventRef(corev1.ObjectReference{APIVersion: "v1", Kind: "PersistentVolume", Name: name},
					corev1.EventTypeWarning, "VolumeFailedDelete", err.Error())
			}
		}
	}
	return removed, failed
}

// tellMade writes what is to be known into the Node, if it isn't there.
func (a *Agent) tellMade(ctx context.Context, node *corev1.Node, removed []string) error {
	text := strings.Join(removed, ",")
	if node.Annotations[volume.AnnDirectory] == a.cfg.Made && node.Annotations[volume.AnnRemoved] == text {
		return nil
	}
	notes := map[string]any{volume.AnnDirectory: a.cfg.Made, volume.AnnRemoved: nil}
	if text != "" {
		notes[volume.AnnRemoved] = text
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": node.UID, "annotations": notes}})
	if err != nil {
		return err
	}
	at := target.Of(client.Nodes.GroupVersionResource, "").Object(node.Name)
	_, err = client.Nodes.Patch(ctx, a.cfg.Transport, at, client.Patch{Type: types.MergePatchType, Data: patch})
	return err
}

// listed reads names with commas.
func listed(text string) []string {
	return slices.DeleteFunc(strings.Split(text, ","), func(n string) bool { return n == "" })
}
