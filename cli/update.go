package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

func updateCommand(s *Settings) *cobra.Command {
	b := &podBuilder{}
	restart := ""
	cmd := ownVerb{
		use: "update", short: "Change how much of the machine containers may use, while they run",
		long: `Change how much of processors and memory containers may use, while they run: theirs is
what they were given a limit of, and how many processes they may have stays.`,
		check: func() error {
			if restart != "" {
				return fmt.Errorf("--restart=%s: a pod keeps its restart policy: sampan rm, and sampan run --restart=%s", restart, restart)
			}
			l := b.flags.limits
			if len(l.ulimits) > 0 || l.pids != 0 || len(l.storage) > 0 {
				return errors.New("processors and memory are what can be changed")
			}
			b.pod, b.c = &corev1.Pod{}, &corev1.Container{}
			if err := b.limits(); err != nil {
				return err
			}
			if len(b.c.Resources.Limits)+len(b.c.Resources.Requests) == 0 {
				return errors.New("say what to change: --memory, --cpus, --memory-reservation or --cpu-shares")
			}
			return nil
		},
		do: func(cmd *cobra.Command, server *server, pod *corev1.Pod) error {
			patch, err := resizePatch(pod, b.c.Resources)
			if err != nil {
				return err
			}
			at := target.Of(client.Pods.GroupVersionResource, pod.Namespace).Object(pod.Name).Sub("resize")
			_, err = client.Pods.Patch(cmd.Context(), server, at, client.Patch{Type: types.StrategicMergePatchType, Data: patch})
			if err != nil && strings.Contains(err.Error(), "QOS Class") {
				return fmt.Errorf("update %s: it was made without such a limit, and cannot get one while it runs: sampan rm, and sampan run with it", pod.Name)
			}
			if err != nil {
				return fmt.Errorf("update %s: %w", pod.Name, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), pod.Name)
			return err
		},
	}.command(s)
	limitFlagsOf(cmd, &b.flags.limits)
	cmd.Flags().StringVar(&restart, "restart", "", "refused: a pod keeps its restart policy")
	var beyond []foreign
	for _, name := range []string{"blkio-weight", "cpu-rt-period", "cpu-rt-runtime", "cpuset-mems", "kernel-memory"} {
		beyond = append(beyond, foreign{name: name, word: true, why: noWord[name]})
	}
	foreignFlags(cmd, beyond...)
	return cmd
}

// resizePatch is the change of a pod's container: what is said, and nothing reserved
// that was not.
func resizePatch(pod *corev1.Pod, to corev1.ResourceRequirements) ([]byte, error) {
	c := pod.Spec.Containers[0]
	for name := range to.Requests {
		if q := to.Requests[name]; q.IsZero() { // what was asked for stays
			if have, asked := c.Resources.Requests[name]; asked {
				to.Requests[name] = have
			}
		}
	}
	return json.Marshal(map[string]any{"spec": map[string]any{"containers": []any{map[string]any{"name": c.Name, "resources": to}}}})
}
