package container

import (
	"encoding/json"
	"errors"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/plan"
	"github.com/sampan-dev/sampan/node/container/seccomp"
)

// planListener is who is asked about the calls of a filter; nil when it asks nobody,
// whether there is somebody or not. The stage adds the pids and the status.
func planListener(prog *seccomp.Program, filter *specs.LinuxSeccomp, of specs.State) (*plan.Listener, error) {
	if !prog.Notifies {
		return nil, nil
	}
	if filter.ListenerPath == "" {
		return nil, errors.New("seccomp profile: action SCMP_ACT_NOTIFY without a listenerPath")
	}
	of.Version = specs.Version
	state, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Metadata: filter.ListenerMetadata, State: of,
	})
	if err != nil {
		return nil, err
	}
	return &plan.Listener{Path: filter.ListenerPath, State: string(state)}, nil
}

// listenerOfExec is the listener of a container told of another process.
func listenerOfExec(l *plan.Listener, pid int) *plan.Listener {
	if l == nil {
		return nil
	}
	out := *l
	out.PID = pid
	return &out
}
