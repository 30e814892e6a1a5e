package cli

import (
	"context"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/build"
)

// limitKinds are the kernel's numbers of the limits that a container may ask for.
//
//nolint:gochecknoglobals // a constant table
var limitKinds = map[string]int{
	"core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA, "fsize": unix.RLIMIT_FSIZE, "locks": unix.RLIMIT_LOCKS,
	"memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC,
	"rss": unix.RLIMIT_RSS, "sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// tellCut says once which limits of --ulimit the container has not got: where sampan may
// not raise its own, a container has no more than that.
func (r *running) tellCut(ctx context.Context, state podState) {
	if !state.running || r.limitsTold || len(r.flags.limits.ulimits) == 0 || os.Geteuid() != 0 {
		return
	}
	r.limitsTold = true
	pid, err := r.program.firstProcess(ctx, r.settings, r.pod)
	if err != nil {
		return // it is elsewhere, or has ended
	}
	for _, text := range r.flags.limits.ulimits {
		asked, err := ulimit(text)
		if err != nil {
			continue // it has been read before
		}
		if has, cut := cutLimit(pid, asked); cut {
			fmt.Fprintf(r.errOut, "sampan: --ulimit %s: its hard limit is %s, which is what sampan itself may have here\n", text, has)
		}
	}
}

// cutLimit says whether a process has less than was asked for, and what it has.
func cutLimit(pid int, asked build.Ulimit) (has string, cut bool) {
	var now unix.Rlimit
	kind, ok := limitKinds[asked.Name]
	if !ok || unix.Prlimit(pid, kind, nil, &now) != nil || now.Max >= asked.Hard {
		return "", false
	}
	return strconv.FormatUint(now.Max, 10), true
}
