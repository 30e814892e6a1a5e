package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine/spec"
)

// ExecAs is Exec of a command with a user, directory or variables of its own.
func (e *Engine) ExecAs(_ context.Context, r *rt.ExecRequest, as cri.As) (*rt.ExecResponse, error) {
	c, err := e.runningContainer(r.GetContainerId())
	if err != nil {
		return nil, err
	}
	if as.Cwd != "" && !path.IsAbs(as.Cwd) {
		return nil, invalid("directory %q is not an absolute path", as.Cwd)
	}
	own, err := json.Marshal(as)
	if err != nil {
		return nil, invalid("command in container %q: %v", c.ID, err)
	}
	r = proto.CloneOf(r)
	r.ContainerId = c.ID + ownMark + string(own)
	return e.streams.server.GetExec(r)
}

// ownMark is between a container's ID and what a command there has of its own: the
// stream server hands on nothing else of a request than that ID. It is in no ID.
const ownMark = "\x00"

// ownOf takes apart what ExecAs has put together.
func ownOf(marked string) (id string, as cri.As, err error) {
	id, own, ok := strings.Cut(marked, ownMark)
	if ok {
		err = json.Unmarshal([]byte(own), &as)
	}
	return id, as, err
}

// execDetached starts a command, and leaves it alone. Of its end nobody is told.
func (e *Engine) execDetached(ctx context.Context, id string, cmd []string, as cri.As, _ container.ExecConfig) (int, error) {
	type end struct {
		code int
		err  error
	}
	begun, ended := make(chan struct{}), make(chan end, 1)
	e.running.Go(func() {
		code, err := e.exec(e.life, id, cmd, as, container.ExecConfig{Kept: true, Started: func() { close(begun) }})
		ended <- end{code, err}
	})
	select {
	case <-begun:
		return 0, nil
	case x := <-ended:
		return x.code, x.err
	case <-ctx.Done():
		return -1, context.Cause(ctx)
	}
}

// own gives a command of a container what it has of its own.
func (e *Engine) own(c *ctr, p *specs.Process, as cri.As) error {
	if as.Cwd != "" {
		p.Cwd = path.Clean(as.Cwd)
	}
	if as.User != "" {
		u, err := e.userIn(c, as.User)
		if err != nil {
			return err
		}
		p.User = specs.User{UID: u.UID, GID: u.GID, AdditionalGids: u.Groups}
		// Whose home nobody has chosen goes with the user.
		if i := slices.Index(p.Env, "HOME="+c.User.Home); i >= 0 && u.Home != "" {
			p.Env[i] = "HOME=" + u.Home
		}
	}
	p.Env = spec.Override(p.Env, as.Env)
	return nil
}

// userIn finds a user by the container's files as they are now. The pod's groups,
// by which it has its volumes, are this user's too.
func (e *Engine) userIn(c *ctr, name string) (spec.User, error) {
	st, err := e.runtime.Status(c.ID)
	if err != nil {
		return spec.User{}, err
	}
	root, err := openDir(fmt.Sprintf("/proc/%d/root", st.PID))
	if err != nil {
		return spec.User{}, precondition("container %q has no files: %v", c.ID, err)
	}
	defer unix.Close(root)
	users, err := accountsIn(root)
	if err != nil {
		return spec.User{}, fmt.Errorf("read the accounts of container %q: %w", c.ID, err)
	}
	// It may have ended meanwhile, and somebody else have its number.
	if _, err := e.runningContainer(c.ID); err != nil {
		return spec.User{}, err
	}
	sc := c.Config.GetLinux().GetSecurityContext()
	return users.Resolve(&rt.LinuxContainerSecurityContext{
		SupplementalGroups: sc.GetSupplementalGroups(), SupplementalGroupsPolicy: sc.GetSupplementalGroupsPolicy()}, name)
}
