package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine/archive"
	"github.com/sampan-dev/sampan/node/image"
)

// A container comes out of a checkpoint when its image is one: the path of an archive, for
// whoever speaks the CRI to the engine, or an image that holds what an archive holds, which
// is told by an annotation of its manifest. So it is with CRI-O and containerd.

// origin is the checkpoint that a container is made from, unpacked.
type origin struct {
	// asked is what the container's configuration has as image.
	asked, dir  string
	description archive.Description
	// snapshot is the key of the one that keeps an image's layers; empty for an archive.
	snapshot string
}

// checkpointSuffix makes the key of the snapshot of a checkpoint's own image.
const checkpointSuffix = volumeInfix + "checkpoint"

// origin finds the image that a container is made of, and the checkpoint, if that is what
// was asked for.
func (e *Engine) origin(ctx context.Context, id, asked string) (*origin, image.Image, error) {
	from := &origin{asked: asked}
	if filepath.IsAbs(asked) {
		from.dir = filepath.Join(e.checkpointDir(id), "archive")
		if err := unpackArchive(ctx, asked, from.dir); err != nil {
			return nil, image.Image{}, errors.Join(fmt.Errorf("restore %q: %w", asked, err), os.RemoveAll(e.checkpointDir(id)))
		}
	} else if img, err := e.prepareOrigin(id, from); err != nil || from.snapshot == "" {
		return nil, img, err
	}
	img, err := e.describe(ctx, from)
	if err != nil {
		e.forgetOrigin(id, from)
		return nil, image.Image{}, fmt.Errorf("restore %q: %w", asked, err)
	}
	return from, img, nil
}

// prepareOrigin finds the image that was asked for and, if it holds a checkpoint, lays it
// out; from has a snapshot then.
func (e *Engine) prepareOrigin(id string, from *origin) (image.Image, error) {
	img, err := e.images.Get(from.asked)
	if err != nil {
		return image.Image{}, err
	}
	notes, err := e.images.Annotations(img)
	if err != nil {
		return image.Image{}, err
	}
	if !slices.ContainsFunc(archive.Annotations, func(a string) bool { return notes[a] != "" }) {
		return img, nil
	}
	key := id + checkpointSuffix
	root, err := e.images.Prepare(key, img.ID)
	if err != nil {
		return image.Image{}, err
	}
	from.snapshot, from.dir = key, layerOf(root)
	if from.dir == "" {
		e.forgetOrigin(id, from)
		return image.Image{}, fmt.Errorf("restore %q: %w: the image has an annotation of a checkpoint, and no layer", from.asked, archive.ErrInvalid)
	}
	return img, nil
}

// layerOf is the layer that has the checkpoint: images of one have that layer alone. It is
// empty where there is none.
func layerOf(root image.Rootfs) string {
	first := ""
	for _, dir := range root.Lower {
		if _, err := os.Lstat(filepath.Join(dir, archive.ConfigFile)); err == nil {
			return dir
		}
		first = cmp.Or(first, dir)
	}
	return first
}

func unpackArchive(ctx context.Context, path, dir string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: it is no file", archive.ErrInvalid)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, done, err := image.Decompress(f)
	if err != nil {
		return err
	}
	defer done()
	return archive.Unpack(ctx, plain, dir)
}

// describe reads what the checkpoint is of, and finds the image of that container.
func (e *Engine) describe(ctx context.Context, from *origin) (image.Image, error) {
	var err error
	if from.description, err = archive.Read(from.dir); err != nil {
		return image.Image{}, err
	}
	c := from.description.Config
	for _, ref := range []string{c.RootfsImageRef, c.RootfsImageName, c.RootfsImage} {
		if ref == "" {
			continue
		}
		img, err := e.images.Get(ref)
		if errors.Is(err, image.ErrNotFound) {
			continue
		}
		if err != nil {
			return image.Image{}, err
		}
		if err := e.mayUse(ctx, from, img); err != nil {
			e.log.Info("a checkpoint's image is not for the pod that would have it", "checkpoint", from.asked, "image", ref, "error", err)
			break // whoever may not have it is not told that it is there
		}
		return img, nil
	}
	return image.Image{}, fmt.Errorf("image %q, which the container was made of, is not on this node, or not for this pod: have the pod pull it first: %w",
		cmp.Or(c.RootfsImageName, c.RootfsImageRef, c.RootfsImage), image.ErrNotFound)
}

// errNobody is for checkpoints in images where nobody says for whom another image is.
var errNobody = errors.New("nobody here says which pods may use it")

// mayUse asks whoever makes the container whether its pod may have the image that the
// checkpoint names: whoever wrote the checkpoint has chosen it, and not by a pull secret.
// Only root comes to the CRI's socket with the path of an archive, for no pod has such an
// image; a kubelet comes there with images that anybody names.
func (e *Engine) mayUse(ctx context.Context, from *origin, img image.Image) error {
	leave := cri.LeaveOf(ctx)
	switch {
	case leave != nil:
		return leave(ctx, slices.Concat(img.Tags, img.Digests), img.ID)
	case from.snapshot == "":
		return nil
	}
	return errNobody
}

// forgetOrigin removes what was unpacked: criu has read it by then.
func (e *Engine) forgetOrigin(id string, from *origin) {
	if from == nil {
		return
	}
	errs := []error{os.RemoveAll(e.checkpointDir(id))}
	if from.snapshot != "" {
		errs = append(errs, e.images.Release(from.snapshot))
	}
	if err := errors.Join(errs...); err != nil {
		e.log.Warn("checkpoint is not cleared away", "container", id, "error", err)
	}
}

// bringBack puts back what the container had changed of its files, and says where its
// processes are; nil for a container that begins anew.
func (e *Engine) bringBack(ctx context.Context, c *ctr, oci *specs.Spec, from *origin) (*container.Restoration, error) {
	if from == nil {
		return nil, nil
	}
	if missing := missingMounts(from.description.Spec, oci); len(missing) > 0 {
		return nil, invalid("restoring %q expects following bind mounts defined (%s)", from.asked, strings.Join(missing, ","))
	}
	deleted, err := archive.ReadDeleted(from.dir)
	if err != nil {
		return nil, err
	}
	diff, err := archive.OpenDiff(from.dir)
	if err != nil {
		return nil, err
	}
	if diff != nil {
		defer diff.Close()
		if err := e.images.ApplyDiff(ctx, c.snapshot(), diff, deleted); err != nil {
			return nil, err
		}
	}
	work := filepath.Join(e.checkpointDir(c.ID), "work")
	return &container.Restoration{Images: filepath.Join(from.dir, archive.ImagesDir), Work: work}, nil
}

// missingMounts are what the checkpointed container had from outside, and the new one has
// not: nothing is mounted because an archive says so.
func missingMounts(was, is *specs.Spec) []string {
	have := map[string]bool{}
	for _, m := range is.Mounts {
		have[filepath.Clean(m.Destination)] = true
	}
	var out []string
	for _, m := range was.Mounts {
		if m.Type == "bind" && !have[filepath.Clean(m.Destination)] {
			out = append(out, m.Destination)
		}
	}
	return out
}
