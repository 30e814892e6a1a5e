package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine/archive"
	"github.com/sampan-dev/sampan/node/image"
)

// checkpointTime is how long a checkpoint is waited for when nobody says: as long as an
// agent waits for its engine.
const checkpointTime = 2 * time.Minute

// CheckpointContainer writes an archive of a running container, which runs on. When the
// time is up the caller is told so; what is under way is let finish, since criu holds the
// container's processes, and thrown away.
func (e *Engine) CheckpointContainer(ctx context.Context, r *rt.CheckpointContainerRequest) (*rt.CheckpointContainerResponse, error) {
	c, err := e.container(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	to := r.GetLocation()
	if !filepath.IsAbs(to) {
		return nil, invalid("checkpoint container %q: location %q is no absolute path", c.name(), to)
	}
	if r.GetTimeout() < 0 {
		return nil, invalid("checkpoint container %q: a timeout of %d seconds", c.name(), r.GetTimeout())
	}
	limit := checkpointTime
	if r.GetTimeout() > 0 {
		limit = time.Duration(min(r.GetTimeout(), int64(longestCheckpoint/time.Second))) * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	w := &checkpointing{e: e, c: c, to: to, dir: e.checkpointDir(c.ID)}
	done := make(chan error, 1)
	e.running.Go(func() { done <- w.write() })
	select {
	case err = <-done:
	case <-ctx.Done():
		if err = context.Cause(ctx); !w.settled.CompareAndSwap(false, true) {
			err = <-done // it has just got its name
		}
	}
	if err != nil {
		return nil, coded(c.said("checkpoint container", "", err))
	}
	return &rt.CheckpointContainerResponse{}, nil
}

// longestCheckpoint bounds what a caller may ask for.
const longestCheckpoint = time.Hour

func (c *ctr) name() string { return c.Config.GetMetadata().GetName() }

// checkpointsDir holds what is on its way into an archive or out of one, a directory a
// container. What a crash leaves there goes at the next start.
const checkpointsDir = "checkpoints"

func (e *Engine) checkpointDir(id string) string {
	return filepath.Join(e.cfg.Root, checkpointsDir, id)
}

// clearCheckpoints removes what was under way when the last engine died.
func (e *Engine) clearCheckpoints() error {
	return os.RemoveAll(filepath.Join(e.cfg.Root, checkpointsDir))
}

// checkpointing is one checkpoint being written.
type checkpointing struct {
	e       *Engine
	c       *ctr
	to, dir string
	// settled says that it has got its name, or will never.
	settled atomic.Bool
}

// write does it all.
func (w *checkpointing) write() error {
	img, oci, err := w.known()
	if err != nil {
		return err
	}
	images := filepath.Join(w.dir, archive.ImagesDir)
	started := false
	err = w.e.runtime.Checkpoint(w.e.life, w.c.ID, container.CheckpointConfig{Images: images, Work: w.dir, Then: w.files,
		Begin: func() error { started = true; return os.RemoveAll(w.dir) }})
	if started {
		defer w.clear()
	}
	if err != nil {
		return err
	}
	if err := archive.Describe(w.dir, w.describe(img, oci)); err != nil {
		return err
	}
	return w.publish()
}

func (w *checkpointing) clear() {
	if err := os.RemoveAll(w.dir); err != nil {
		w.e.log.Warn("checkpoint is not cleared away", "container", w.c.ID, "error", err)
	}
}

// known is what the container was made of.
func (w *checkpointing) known() (image.Image, *specs.Spec, error) {
	s := w.e.records.sandbox(w.c.SandboxID)
	if s == nil {
		return image.Image{}, nil, notFound("sandbox %q is not found", w.c.SandboxID)
	}
	img, err := w.e.images.Get(w.c.ImageID)
	if err != nil {
		return image.Image{}, nil, err
	}
	root, err := w.e.images.Snapshot(w.c.snapshot())
	if err != nil {
		return image.Image{}, nil, err
	}
	copied := *w.c // the specification is made of a container once more
	volumes := map[int][]string{}
	for i, m := range w.c.Config.GetMounts() {
		if m.GetImage().GetImage() == "" {
			continue
		}
		v, err := w.e.images.Snapshot(volumeSnapshot(w.c.ID, len(volumes)))
		if err != nil {
			return image.Image{}, nil, err
		}
		volumes[i] = v.Lower
	}
	oci, err := w.e.specification(s, &copied, made{img: img, root: root, volumes: volumes})
	return img, oci, err
}

// files writes what the container has changed of its image. It stands still meanwhile.
func (w *checkpointing) files() error {
	var at []string
	for _, m := range w.c.Config.GetMounts() {
		at = append(at, path.Join("/", m.GetContainerPath()))
	}
	at = append(at, "/dev", "/proc", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
	changes, err := w.e.images.Changes(w.c.snapshot(), func(p string) bool { return slices.Contains(at, p) })
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(w.dir, archive.DiffFile), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	deleted, err := w.e.images.WriteDiff(f, w.c.snapshot(), changes)
	if err != nil {
		return err
	}
	return errors.Join(f.Close(), archive.Deleted(w.dir, deleted))
}

// describe says what the container was, to whoever restores it and to people's tools.
func (w *checkpointing) describe(img image.Image, oci *specs.Spec) archive.Description {
	s := w.e.records.sandbox(w.c.SandboxID)
	d := archive.Description{Spec: oci, Config: archive.Config{
		ID: w.c.ID, Name: w.c.name(), RootfsImage: w.c.Config.GetImage().GetUserSpecifiedImage(), RootfsImageRef: img.ID, RootfsImageName: w.c.ImageRef,
		OCIRuntime: Name, CreatedTime: time.Unix(0, w.c.CreatedAt).UTC(), CheckpointedAt: time.Now().UTC(), Restored: w.c.Restored,
	}}
	if d.Config.RootfsImage == "" {
		d.Config.RootfsImage = w.c.Config.GetImage().GetImage()
	}
	if len(img.Tags) > 0 {
		d.Config.RootfsImageName = img.Tags[0]
	}
	for _, m := range oci.Mounts {
		if m.Type != "bind" {
			continue
		}
		b := archive.BindMount{Source: m.Source, Destination: m.Destination, FileType: "file", Permissions: 0o644}
		if st, err := os.Stat(m.Source); err == nil {
			b.Permissions = uint32(st.Mode().Perm())
			if st.IsDir() {
				b.FileType = "directory"
			}
		}
		d.Mounts = append(d.Mounts, b)
	}
	oci.Annotations = annotated(oci.Annotations, s, w.c)
	return d
}

// annotated are the annotations by which CRI-O and checkpointctl find out whose a
// checkpoint is: the form of the archive is theirs, and so is its name.
func annotated(have map[string]string, s *sandbox, c *ctr) map[string]string {
	out := map[string]string{}
	for k, v := range have {
		out[k] = v
	}
	text := func(v any) string { b, _ := json.Marshal(v); return string(b) } // strings and maps of them alone
	own := c.Config.GetAnnotations()
	if own == nil {
		own = map[string]string{}
	}
	out["io.container.manager"] = "cri-o"
	out["io.kubernetes.cri-o.Annotations"] = text(own)
	out["io.kubernetes.cri-o.Metadata"] = text(map[string]string{"name": c.name()})
	out["io.kubernetes.cri-o.Created"] = time.Unix(0, c.CreatedAt).UTC().Format(time.RFC3339Nano)
	out["io.kubernetes.container.name"] = c.name()
	if s == nil {
		return out
	}
	out["io.kubernetes.pod.name"] = s.Config.GetMetadata().GetName()
	out["io.kubernetes.pod.namespace"] = s.Config.GetMetadata().GetNamespace()
	out["io.kubernetes.pod.uid"] = s.Config.GetMetadata().GetUid()
	if len(s.IPs) > 0 {
		out["io.kubernetes.cri-o.IP.0"] = s.IPs[0].String()
	}
	return out
}

// publish packs the archive beside its place, and gives it its name, unless nobody waits
// for it any more.
func (w *checkpointing) publish() (failed error) {
	f, err := os.CreateTemp(filepath.Dir(w.to), ".checkpoint-*"+atomicfile.Suffix) // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if failed != nil {
			failed = errors.Join(failed, os.Remove(f.Name()))
		}
	}()
	defer f.Close()
	if err := archive.Pack(w.dir, f); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if !w.settled.CompareAndSwap(false, true) {
		return fmt.Errorf("nobody waits for it any more: %w", context.DeadlineExceeded)
	}
	if err := os.Rename(f.Name(), w.to); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(w.to))
}
