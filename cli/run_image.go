package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/build"
	"github.com/sampan-dev/sampan/node/image"
)

// ownEngine is how a node's container engine calls itself when it is ours.
const ownEngine = "sampan://"

// ready sees to it that the pod goes to this machine, and that its image is here.
func (r *running) ready(ctx context.Context, node *corev1.Node) error {
	if err := reachHost(r.pod, node); err != nil {
		return err
	}
	if node == nil {
		if len(r.pod.Spec.Volumes)+len(r.flags.ports) > 0 {
			return errors.New("this machine is no node of the cluster, so it has neither its directories nor its ports: leave out -v and -p")
		}
		return r.unseen(ctx)
	}
	r.pod.Spec.Affinity = onNode(node.Name)
	if err := r.anyPorts(ctx, node.Name); err != nil {
		return err
	}
	if hasOurAddress(node) && !r.flags.gated {
		if err := portsFree(ctx, r.pod); err != nil {
			return err
		}
	}
	own := strings.HasPrefix(node.Status.NodeInfo.ContainerRuntimeVersion, ownEngine)
	if own {
		keepFiles(r.pod)
	}
	if os.Geteuid() != 0 || !own {
		return r.unseen(ctx) // the node will fetch the image
	}
	store, err := r.settings.images()
	if err != nil {
		return err
	}
	img, err := r.fetch(ctx, store)
	if err != nil {
		return err
	}
	if err := r.fromImage(ctx, store, img, node); err != nil {
		return err
	}
	return r.number(ctx, store, img)
}

// onNode keeps a pod on a node as a DaemonSet does: the scheduler still judges.
func onNode(name string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{{
			Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{name},
		}}}},
	}}}
}

// fetch finds the image here, or brings it as --pull says.
func (r *running) fetch(ctx context.Context, store *image.Store) (image.Image, error) {
	img, err := store.Get(r.image)
	switch {
	case err != nil && !errors.Is(err, image.ErrNotFound):
		return img, err
	case err != nil && r.flags.pull == "never":
		return img, fmt.Errorf("%w, and --pull=never: fetch it with sampan pull %s", err, r.image)
	case err == nil && r.flags.pull != "always" && r.fits(img):
		r.byName(img)
		return img, nil
	case err == nil && r.flags.pull == "never":
		return img, fmt.Errorf("%s is for %s here, and --pull=never", r.image, platformOf(img))
	}
	if err != nil && !r.flags.quiet { // it may take long
		fmt.Fprintf(r.errOut, "sampan: image %q is not here: fetching it\n", r.image)
	}
	opts := r.settings.transfers()
	opts.Architecture = strings.TrimPrefix(r.flags.platform, "linux/")
	if !r.flags.quiet {
		opts.Progress = layersTo(r.errOut)
	}
	if img, err = store.Pull(ctx, r.image, opts); err != nil {
		return img, err
	}
	if !r.fits(img) {
		return img, fmt.Errorf("%s is for %s alone, not for %s", r.image, platformOf(img), r.flags.platform)
	}
	// It is as new as can be: the node need not ask again.
	r.pod.Spec.Containers[0].ImagePullPolicy = corev1.PullIfNotPresent
	return img, nil
}

// byName replaces an image's ID, which nobody can fetch, by a name that it has.
func (r *running) byName(img image.Image) {
	c := &r.pod.Spec.Containers[0]
	if full, err := image.Normalise(r.image); err == nil {
		for _, ref := range append(img.Tags, img.Digests...) {
			if ref == full {
				return
			}
		}
	}
	c.Image = img.ID
	if len(img.Tags) > 0 {
		c.Image = img.Tags[0]
	}
	c.ImagePullPolicy = corev1.PullNever
}

// number turns --user into the numbers that pods have; names are the image's.
func (r *running) number(ctx context.Context, store *image.Store, img image.Image) error {
	if r.flags.user == "" {
		return nil
	}
	user, group, _ := strings.Cut(r.flags.user, ":")
	sc := r.pod.Spec.Containers[0].SecurityContext
	uid, uidErr := strconv.ParseInt(user, 10, 32)
	gid, gidErr := strconv.ParseInt(group, 10, 32)
	if uidErr == nil && (group == "" || gidErr == nil) {
		sc.RunAsUser = &uid
		if group != "" {
			sc.RunAsGroup = &gid
		}
		return nil
	}
	if store == nil {
		return fmt.Errorf("--user %q: the image is not at hand to look names up: use numbers", r.flags.user)
	}
	who, err := build.AccountOf(ctx, store, img, r.flags.user)
	if err != nil {
		return fmt.Errorf("--user %q: %w", r.flags.user, err)
	}
	u, g := int64(who.UID), int64(who.GID)
	sc.RunAsUser, sc.RunAsGroup = &u, &g
	return nil
}
