package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/timeline"
)

func traceCommand(s *Settings) *cobra.Command {
	namespace, output := "", ""
	cmd := &cobra.Command{
		Use: "trace [pod/]NAME", Short: "Show each step of a pod's way, with its time", Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			if namespace == "" {
				namespace = server.namespace
			}
			pod, err := server.traced(cmd.Context(), args, namespace)
			if err != nil {
				return err
			}
			marks, err := server.records.Timeline(cmd.Context(), string(pod.UID))
			if err != nil {
				return err
			}
			if output == "json" {
				return printJSON(cmd.OutOrStdout(), marks)
			}
			return printTrace(cmd.OutOrStdout(), pod, marks)
		},
	}
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "the object's namespace")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json, for machines")
	return cmd
}

// traced is the pod whose steps are asked for: a bare name is one's.
func (s *server) traced(ctx context.Context, args []string, namespace string) (*corev1.Pod, error) {
	if len(args) == 1 && !strings.Contains(args[0], "/") {
		return s.named(ctx, namespace, args[0])
	}
	at, err := parseObject(args, namespace)
	if err != nil {
		return nil, err
	}
	if at.kind != "pod" {
		return nil, fmt.Errorf("trace follows pods: it knows no steps of a %s", at.kind)
	}
	return client.Pods.Get(ctx, s, at.namespace, at.name)
}

// stations say what each step is, as a reader should know it.
var stations = map[timeline.Step]string{
	timeline.Request:  "1  the client's object arrives",
	timeline.Admit:    "2  authenticated, authorised, admitted, validated",
	timeline.Store:    "3  one record in the store, nothing else",
	timeline.Schedule: "4  the scheduler filters, scores and binds",
	timeline.Run:      "5  the node runs it",
}

// printTrace prints the steps in order, each mark with the time since the first
// and how long it took.
func printTrace(out io.Writer, pod *corev1.Pod, marks []timeline.Mark) error {
	if len(marks) == 0 {
		return errors.New("nothing is remembered of that pod: it was made before sampan last started, or long ago")
	}
	start := marks[0].Start
	fmt.Fprintf(out, "pod %s/%s on node %s\n", pod.Namespace, pod.Name, pod.Spec.NodeName)
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	for step := timeline.Request; step <= timeline.Run; step++ {
		fmt.Fprintf(w, "\t\t  %s\n", stations[step])
		for _, m := range marks {
			if m.Step == step {
				fmt.Fprintf(w, "%s\t%s\t     %s\n", millis(m.Start.Sub(start)), lasted(m), described(m))
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	last := marks[0].End
	for _, m := range marks {
		if m.End.After(last) {
			last = m.End
		}
	}
	_, err := fmt.Fprintf(out, "%s from the request to the last step\n", millis(last.Sub(start)))
	return err
}

// lasted is how long something took, or that it goes on.
func lasted(m timeline.Mark) string {
	if m.End.IsZero() {
		return "under way"
	}
	return millis(m.End.Sub(m.Start))
}

func described(m timeline.Mark) string {
	if m.Detail == "" {
		return m.Name
	}
	return m.Name + ": " + m.Detail
}

func millis(d time.Duration) string {
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
