package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/engine/spec"
	"github.com/sampan-dev/sampan/node/image"
)

// CreateContainer makes a container, ready to start. On failure nothing is left.
func (e *Engine) CreateContainer(ctx context.Context, r *rt.CreateContainerRequest) (*rt.CreateContainerResponse, error) {
	cfg := proto.CloneOf(r.GetConfig())
	if cfg.GetMetadata().GetName() == "" {
		return nil, invalid("container has no metadata or no name")
	}
	s := e.records.sandbox(r.GetPodSandboxId())
	if s == nil {
		return nil, notFound("sandbox %q is not found", r.GetPodSandboxId())
	}
	id := newID()
	from, img, err := e.origin(ctx, id, cfg.GetImage().GetImage())
	if err != nil {
		return nil, coded(fmt.Errorf("container %q: %w", cfg.GetMetadata().GetName(), err))
	}
	defer e.forgetOrigin(id, from)
	c := &ctr{
		ID: id, Restored: from != nil, SandboxID: s.ID, Config: cfg, ImageID: img.ID, ImageRef: digested(img, cfg.GetImage()), CreatedAt: time.Now().UnixNano(),
		LogPath: logPath(s.Config, cfg), StopSignal: int(spec.StopSignal(cfg, img.Config.Config.StopSignal)),
	}
	if from == nil { // what comes out of a checkpoint has the files of that
		c.Kept = keptKey(s.Config, cfg)
	}
	defer e.busy.Lock(c.ID)()
	if err := e.records.reserveContainer(c); err != nil {
		return nil, err
	}
	defer e.records.made(c.ID)
	if err := e.makeContainer(ctx, s, c, made{img: img, from: from}); err != nil {
		if undo := e.unmakeContainer(context.WithoutCancel(ctx), c); undo != nil {
			e.log.Warn("failed container is not undone", "container", c.ID, "pod", podName(s.Config), "error", undo)
		}
		return nil, coded(c.said("create container", fmt.Sprintf(" of pod %q", podName(s.Config)), err))
	}
	e.records.made(c.ID)
	e.announce(s.ID, c.ID, rt.ContainerEventType_CONTAINER_CREATED_EVENT)
	return &rt.CreateContainerResponse{ContainerId: c.ID}, nil
}

func (e *Engine) makeContainer(ctx context.Context, s *sandbox, c *ctr, of made) error {
	if !e.knownHandler(s.Handler) { // it was, when the sandbox was made
		return fmt.Errorf("no runtime for %q is configured", s.Handler)
	}
	var err error
	if of.root, of.volumes, err = e.prepareSnapshots(s, c, of.img); err != nil {
		return err
	}
	if err := makeSources(c.Config.GetMounts()); err != nil {
		return err
	}
	oci, err := e.specification(s, c, of)
	if err != nil {
		return err
	}
	shared, err := e.runtime.Sandbox(s.ID)
	if err != nil {
		return err
	}
	if err := e.relabel(ctx, s, c.Config.GetMounts(), shared.Shm(), oci.Linux.MountLabel); err != nil {
		return err
	}
	restore, err := e.bringBack(ctx, c, oci, of.from)
	if err != nil {
		return err
	}
	root := of.root
	c.Env, c.Cwd = oci.Process.Env, oci.Process.Cwd
	if c.LogPath != "" {
		if err := os.MkdirAll(filepath.Dir(c.LogPath), 0o755); err != nil {
			return fmt.Errorf("make log directory: %w", err)
		}
	}
	var g errgroup.Group
	g.Go(func() error { return e.records.createContainer(c) })
	g.Go(func() error {
		return e.runtime.Create(ctx, container.CreateConfig{ID: c.ID, SandboxID: s.ID, Spec: oci, LogPath: c.LogPath,
			Rootfs:  container.Rootfs{Lower: root.Lower, Upper: root.Upper, Work: root.Work, ReadOnly: oci.Root.Readonly},
			Runtime: e.cfg.Runtimes[s.Handler], Restore: restore,
			TTY: c.Config.GetTty(), Stdin: c.Config.GetStdin(), StdinOnce: c.Config.GetStdinOnce()})
	})
	return g.Wait()
}

// confine is what the kernel's security modules shall know the container by.
func (e *Engine) confine(s *sandbox, c *rt.ContainerConfig) (profile string, labels spec.Labels, err error) {
	if profile, err = spec.AppArmor(c.GetLinux().GetSecurityContext(), e.appArmor); err != nil {
		return "", spec.Labels{}, err
	}
	labels, err = spec.ContainerLabels(c, s.Config, s.Labels, e.seLinux.policy())
	return profile, labels, err
}

// made is what a container is made of besides its configuration.
type made struct {
	img  image.Image
	root image.Rootfs
	// volumes are the layers of images that it mounts, by the mount.
	volumes map[int][]string
	// from is the checkpoint that its processes come out of; nil is none.
	from *origin
}

// specification says what the container is to the runtime, and finds out who its user is.
func (e *Engine) specification(s *sandbox, c *ctr, of made) (*specs.Spec, error) {
	shared, err := e.runtime.Sandbox(s.ID)
	if err != nil {
		return nil, err
	}
	users, err := e.accounts.of(of.img.ID, of.root.Lower)
	if err != nil {
		return nil, err
	}
	if c.User, err = users.Resolve(c.Config.GetLinux().GetSecurityContext(), of.img.Config.Config.User); err != nil {
		return nil, err
	}
	profile, labels, err := e.confine(s, c.Config)
	if err != nil {
		return nil, err
	}
	ns, err := e.namespaces(s.ID, c.Config)
	if err != nil {
		return nil, err
	}
	in := spec.Input{Container: c.Config, Sandbox: s.Config, Image: of.img.Config.Config, User: c.User, Files: e.files(s.ID).visible(shared.Shm()),
		ImageMounts: of.volumes, Namespaces: ns, CgroupsPath: path.Join(e.cgroupParent(s.Config), c.ID), Hostname: hostname(s.Config), UserNamespace: userNamespace(s.Config),
		HostCaps: e.hostCaps, AppArmor: profile, SELinux: labels, PidsLimit: max(0, e.cfg.PidsLimit)}
	if labels.Mount != "" {
		in.Nothing = e.files(s.ID).nothing()
	}
	oci, err := spec.Build(in)
	if err != nil {
		return nil, err
	}
	if err := e.devices(oci, c.Config); err != nil {
		return nil, err
	}
	oci.Process.Env = spec.Homely(oci.Process.Env, c.User)
	return oci, nil
}

// makeSources makes a directory of what is to be mounted and is not there, as containerd
// and CRI-O do: a hostPath volume without a type is used so, and device plugins name
// paths that they only have in a container of their own.
func makeSources(mounts []*rt.Mount) error {
	for _, m := range mounts {
		if m.GetHostPath() == "" {
			continue
		}
		if _, err := os.Stat(m.GetHostPath()); !errors.Is(err, os.ErrNotExist) {
			continue // there, or said with what it is wanted for
		}
		if err := os.MkdirAll(m.GetHostPath(), 0o755); err != nil {
			return fmt.Errorf("mount on %q: %w", m.GetContainerPath(), err)
		}
	}
	return nil
}

// prepareSnapshots makes the container's own snapshot, and one of each image
// that it mounts as a volume, so that no layer goes while it is in use.
func (e *Engine) prepareSnapshots(s *sandbox, c *ctr, img image.Image) (image.Rootfs, map[int][]string, error) {
	volumes := map[int][]string{}
	for i, m := range c.Config.GetMounts() {
		ref := m.GetImage().GetImage()
		if ref == "" {
			continue
		}
		root, err := e.images.Prepare(volumeSnapshot(c.ID, c.Volumes), ref)
		if err != nil {
			return image.Rootfs{}, nil, fmt.Errorf("image volume %q: %w", ref, err)
		}
		c.Volumes++
		volumes[i] = root.Lower
	}
	root, err := e.ownSnapshot(s, c, img)
	return root, volumes, err
}

const volumeInfix = ".volume-"

func volumeSnapshot(id string, i int) string { return fmt.Sprintf("%s%s%d", id, volumeInfix, i) }

// cutSnapshot finds the container that a snapshot belongs to.
func cutSnapshot(key string) (id, volume string, isVolume bool) { return strings.Cut(key, volumeInfix) }

// namespaces are those that a container has of its own. Those of the sandbox
// are the runtime's business.
func (e *Engine) namespaces(sandboxID string, c *rt.ContainerConfig) ([]specs.LinuxNamespace, error) {
	out := []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace}, {Type: specs.NetworkNamespace}}
	sc := c.GetLinux().GetSecurityContext()
	if !sc.GetPrivileged() {
		out = append(out, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	pid := specs.LinuxNamespace{Type: specs.PIDNamespace}
	switch sc.GetNamespaceOptions().GetPid() {
	case rt.NamespaceMode_NODE:
		return out, nil
	case rt.NamespaceMode_TARGET:
		target := e.records.container(sc.GetNamespaceOptions().GetTargetId())
		if target == nil {
			return nil, invalid("target container %q is not found", sc.GetNamespaceOptions().GetTargetId())
		}
		if target.SandboxID != sandboxID {
			return nil, invalid("target container %q is not of this pod", target.ID)
		}
		st, err := e.runtime.Status(target.ID)
		if err != nil {
			return nil, err
		}
		if st.State != container.Running {
			return nil, precondition("target container %q is %s, not running", target.ID, st.State)
		}
		pid.Path = fmt.Sprintf("/proc/%d/ns/pid", st.PID)
	}
	return append(out, pid), nil
}

// logPath is empty when the pod wants no log files.
func logPath(s *rt.PodSandboxConfig, c *rt.ContainerConfig) string {
	if s.GetLogDirectory() == "" || c.GetLogPath() == "" {
		return ""
	}
	return filepath.Join(s.GetLogDirectory(), filepath.Join("/", c.GetLogPath()))
}

// digested is the reference by which an image can be pulled again, or its ID
// where it came from no registry. Of several repositories that have it, it is of the
// one in which it was asked for.
func digested(img image.Image, asked *rt.ImageSpec) string {
	if full, err := image.Normalise(cmp.Or(asked.GetUserSpecifiedImage(), asked.GetImage())); err == nil {
		for _, d := range img.Digests {
			if repo, _, _ := strings.Cut(d, "@"); strings.HasPrefix(full, repo+":") || strings.HasPrefix(full, repo+"@") {
				return d
			}
		}
	}
	if len(img.Digests) > 0 {
		return img.Digests[0]
	}
	return img.ID
}
