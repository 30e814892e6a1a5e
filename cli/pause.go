package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

// pausedAnnotation is the ID of the container that sampan pause has made stand still:
// one that is started after it does not.
const pausedAnnotation = "sampan.dev/paused"

func pauseCommand(p Program, s *Settings) *cobra.Command {
	return ownVerb{
		use: "pause", short: "Let all processes of containers stand still",
		long: `Let all processes of containers on this machine stand still until sampan unpause, or
sampan stop, which ends them. Their memory, their ports and their files stay theirs. A
health check fails meanwhile, since nobody is there to answer it.`,
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			if isPaused(pod) {
				return fmt.Errorf("%s is paused already", pod.Name)
			}
			return p.still(cmd, s, server, pod, true)
		},
	}.command(s)
}

func unpauseCommand(p Program, s *Settings) *cobra.Command {
	return ownVerb{
		use: "unpause", short: "Let containers go on that sampan pause has made stand still",
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			if !isPaused(pod) {
				return fmt.Errorf("%s is not paused", pod.Name)
			}
			return p.still(cmd, s, server, pod, false)
		},
	}.command(s)
}

// isPaused says whether a container that runs has been made to stand still.
func isPaused(pod *corev1.Pod) bool {
	id := pod.Annotations[pausedAnnotation]
	return id != "" && look(pod).running && pod.Status.ContainerStatuses[0].ContainerID == id
}

// still makes a container stand still, or go on, and has its pod say so.
func (p Program) still(cmd *cobra.Command, s *Settings, server *server, pod *corev1.Pod, is bool) error {
	ctx := cmd.Context()
	pid, err := p.firstProcess(ctx, s, pod)
	if err != nil {
		return err
	}
	if err := freeze("/proc", cgroupRoot, pid, is); err != nil {
		return fmt.Errorf("%s: %w", pod.Name, err)
	}
	if err := server.notePaused(ctx, pod, is); err != nil {
		if is { // nobody would know why it stands still
			err = errors.Join(err, freeze("/proc", cgroupRoot, pid, false))
		}
		return fmt.Errorf("%s: %w", pod.Name, err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
	return err
}

func (s *server) notePaused(ctx context.Context, pod *corev1.Pod, is bool) error {
	value := "null"
	if is {
		value = fmt.Sprintf("%q", pod.Status.ContainerStatuses[0].ContainerID)
	}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%s}}}`, pausedAnnotation, value)
	at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name)
	_, err := client.Pods.Patch(ctx, s, at, client.Patch{Type: types.MergePatchType, Data: []byte(patch)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// goOn lets a container go on that stands still, so that it can end: of processes that
// do, only some kernels take the life.
func (p Program) goOn(ctx context.Context, s *Settings, server *server, pod *corev1.Pod) error {
	if !isPaused(pod) {
		return nil
	}
	pid, err := p.firstProcess(ctx, s, pod)
	if err != nil {
		return err
	}
	if err := freeze("/proc", cgroupRoot, pid, false); err != nil {
		return err
	}
	return server.notePaused(ctx, pod, false)
}

// cgroupRoot is where the machine has its hierarchies of control groups.
const cgroupRoot = "/sys/fs/cgroup"

// Bounds of waiting for processes to stand still: those that wait for a disk do so
// when it has answered.
const (
	freezeWait = 10 * time.Second
	freezeLook = 5 * time.Millisecond
)

// freeze makes the processes in a process's cgroup stand still, or go on, and waits
// until they do.
func freeze(proc, root string, pid int, still bool) error {
	raw, err := os.ReadFile(filepath.Join(proc, fmt.Sprint(pid), "cgroup"))
	if err != nil {
		return err
	}
	f, err := freezerOf(string(raw), root)
	if err != nil {
		return err
	}
	word := f.goOn
	if still {
		word = f.still
	}
	if err := os.WriteFile(f.write, []byte(word), 0); err != nil {
		return err
	}
	for late := time.Now().Add(freezeWait); still; {
		state, err := os.ReadFile(f.read)
		if err != nil {
			return err
		}
		if strings.Contains(string(state), f.done) {
			return nil
		}
		if time.Now().After(late) {
			return errors.Join(fmt.Errorf("not all of its processes stand still after %s", freezeWait), os.WriteFile(f.write, []byte(f.goOn), 0))
		}
		time.Sleep(freezeLook) // the freezer of cgroup v1 tells nobody
	}
	return nil
}

// freezer is where a cgroup is told to stand still, and tells that it does.
type freezer struct{ write, read, still, goOn, done string }

// freezerOf finds it by what proc tells of a process's cgroups: the hierarchy of that
// name in v1, else the unified one.
func freezerOf(groups, root string) (freezer, error) {
	unified := ""
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3 || fields[2] == "/" || strings.Contains(fields[2], ".."):
		case fields[1] == "freezer":
			dir := filepath.Join(root, "freezer", fields[2])
			return freezer{filepath.Join(dir, "freezer.state"), filepath.Join(dir, "freezer.state"), "FROZEN", "THAWED", "FROZEN"}, nil
		case fields[0] == "0":
			unified = filepath.Join(root, fields[2])
		}
	}
	if unified == "" {
		return freezer{}, errors.New("it has no cgroup of its own in which processes can stand still")
	}
	return freezer{filepath.Join(unified, "cgroup.freeze"), filepath.Join(unified, "cgroup.events"), "1", "0", "frozen 1"}, nil
}
