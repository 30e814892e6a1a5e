package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// criu holds the processes that it has brought back by ptrace, and lets go of them stopped.
// A timer that comes out of the images, or a signal, has them go on at once. So criu calls
// the keeper before it lets go (plan.Halt), and the keeper freezes them.

// haltedBy is what criu is started with.
func haltedBy(f *plan.Restore) (args, env []string, err error) {
	if f.Halt == nil {
		return f.Args, f.Env, nil
	}
	how, err := json.Marshal(f.Halt)
	if err != nil {
		return nil, nil, err
	}
	own := strconv.Itoa(os.Getpid())
	return append(slices.Clone(f.Args), f.Halt.Option, "/proc/"+own+"/exe"),
		append(slices.Clone(f.Env), plan.HaltStage+"="+own, plan.HaltHow+"="+string(how)), nil
}

// halt is what criu calls. It never returns.
func halt() {
	how := &plan.Halt{}
	err := json.Unmarshal([]byte(os.Getenv(plan.HaltHow)), how)
	if err == nil {
		err = haltAt(os.Getenv("CRTOOLS_SCRIPT_ACTION"), os.Getenv(plan.HaltStage), how)
	}
	if err != nil {
		_, _ = os.Stderr.WriteString("Error (keeper): " + err.Error() + "\n") // as criu says it
		os.Exit(1)
	}
	os.Exit(0)
}

// haltAt does what belongs to one of criu's moments. Of those two criu gives up when the
// first fails; when the second does it goes on, so that whatever is there is killed.
func haltAt(moment, stage string, how *plan.Halt) error {
	switch moment {
	case "post-restore": // nothing is born any more
		return goHome(stage, how.Homes)
	case "pre-resume":
		if err := writeFile(how.Freezer, how.Frozen); err != nil {
			return errors.Join(fmt.Errorf("freeze: %w", err), killAll(how))
		}
	}
	return nil
}

// goHome moves this process, and those between it and the stage, out of the container's
// cgroups: none of its limits shall have the next call fail. From within a cgroup namespace
// nobody may leave it.
func goHome(stage string, homes []string) error {
	if err := enter("/proc/"+stage+"/ns/cgroup", cloneNewcgroup); err != nil {
		return err
	}
	for pid := strconv.Itoa(os.Getpid()); pid != stage; {
		for _, procs := range homes {
			if err := writeFile(procs, pid); err != nil {
				return fmt.Errorf("leave the container's cgroup: %w", err)
			}
		}
		parent, err := parentOf(pid)
		if err != nil {
			return err
		}
		if parent == "0" || parent == "1" {
			return errors.New("leave the container's cgroup: not called by the stage's child")
		}
		pid = parent
	}
	return nil
}

func parentOf(pid string) (string, error) {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if parent, ok := strings.CutPrefix(line, "PPid:"); ok {
			return strings.TrimSpace(parent), nil
		}
	}
	return "", fmt.Errorf("process %s has no parent", pid)
}

// halted wants the container frozen, now that criu has ended; if it is not, something of
// it may have run already, and it ends here.
func (s *stager) halted(f *plan.Restore) error {
	if f.Halt == nil {
		return nil
	}
	text, err := os.ReadFile(f.Halt.Freezer)
	if is := strings.TrimSpace(string(text)); err == nil && (is == f.Halt.Frozen || is == "FREEZING") {
		return nil
	}
	return errors.Join(errors.New("it has let go of processes that had not been frozen"), err, killAll(f.Halt))
}

// killAll ends what was to be frozen.
func killAll(how *plan.Halt) error {
	return signalGroup(path.Dir(how.Freezer)+"/cgroup.procs", syscall.SIGKILL, func(int) bool { return false })
}

// signalGroup sends a signal to the processes of a cgroup, but for some.
func signalGroup(procs string, sig syscall.Signal, but func(pid int) bool) error {
	text, err := os.ReadFile(procs)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		pid, err := strconv.Atoi(strings.TrimSpace(line))
		if err == nil && pid > 1 && !but(pid) {
			_ = syscall.Kill(pid, sig) // it may have been killed
		}
	}
	return nil
}
