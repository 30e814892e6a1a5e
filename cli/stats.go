package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
)

// statsEvery is how often stats looks: what a container does is what it has done
// since it was looked at last.
const statsEvery = time.Second

func statsCommand(s *Settings) *cobra.Command {
	once, all, namespace, format := false, false, "", "table"
	cmd := &cobra.Command{
		Use: "stats [NAME...]", Short: "Show what containers use of processors, memory and network",
		Long: `Show what containers use of processors, memory and network, again and again until
Ctrl-C, or once with --no-stream. Without names, of all of sampan run that run.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			server, err := s.connect()
			if err != nil {
				return err
			}
			if namespace == "" {
				namespace = server.namespace
			}
			w := &statsWatch{server: server, namespace: namespace, names: args, all: all, format: format, out: cmd.OutOrStdout()}
			w.clear = !once && terminal(w.out)
			err = w.run(cmd.Context(), once)
			if errors.Is(err, context.Canceled) {
				return nil // Ctrl-C is how it ends
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "no-stream", false, "only once")
	cmd.Flags().StringVar(&format, "format", format, "table, json, or a template such as {{.Name}} {{.CPUPerc}} {{.MemUsage}}")
	cmd.Flags().Bool("no-trunc", false, "nothing: names are whole")
	hide(cmd.Flags(), "no-trunc")
	cmd.Flags().BoolVarP(&all, "all", "a", false, "also those that do not run")
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pods (default: that of the kubeconfig)")
	return cmd
}

// podFigures is what a node tells of a pod: a part of its /stats/summary.
type podFigures struct {
	PodRef struct {
		UID types.UID `json:"uid"`
	} `json:"podRef"`
	CPU struct {
		Time time.Time `json:"time"`
		Used uint64    `json:"usageCoreNanoSeconds"`
	} `json:"cpu"`
	Memory struct {
		WorkingSet int64 `json:"workingSetBytes"`
	} `json:"memory"`
	Network struct {
		Received int64 `json:"rxBytes"`
		Sent     int64 `json:"txBytes"`
	} `json:"network"`
	Processes struct {
		Count int64 `json:"process_count"`
	} `json:"process_stats"`
}

// statsWatch is one sampan stats.
type statsWatch struct {
	*server
	namespace  string
	names      []string
	all, clear bool
	format     string
	out        io.Writer
	// before are the figures of the look before this one, memory what nodes have.
	before map[types.UID]podFigures
	memory map[string]int64
}

// run looks until ctx ends: twice before anything is shown.
func (w *statsWatch) run(ctx context.Context, once bool) error {
	for first := true; ; first = false {
		pods, err := w.pods(ctx)
		if err != nil {
			return err
		}
		now, err := w.look(ctx, pods)
		if err != nil {
			return err
		}
		if !first {
			if err := w.show(pods, now); err != nil || once {
				return err
			}
		}
		w.before = now
		select {
		case <-time.After(statsEvery):
		case <-ctx.Done():
			return context.Canceled
		}
	}
}

// pods are those that are meant, by name.
func (w *statsWatch) pods(ctx context.Context) ([]*corev1.Pod, error) {
	if len(w.names) == 0 {
		pods, _, err := client.Pods.List(ctx, w, w.namespace, metav1.ListOptions{LabelSelector: runLabel})
		pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool { return !w.all && !look(p).running })
		slices.SortFunc(pods, func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		return pods, unanswered(err)
	}
	var pods []*corev1.Pod
	for _, name := range w.names {
		pod, err := w.named(ctx, w.namespace, name)
		if err != nil {
			return nil, err
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

// look asks the nodes of the pods.
func (w *statsWatch) look(ctx context.Context, pods []*corev1.Pod) (map[types.UID]podFigures, error) {
	figures, asked := map[types.UID]podFigures{}, map[string]bool{"": true}
	for _, pod := range pods {
		name := pod.Spec.NodeName
		if asked[name] {
			continue
		}
		asked[name] = true
		if err := w.node(ctx, name, figures); err != nil {
			return nil, fmt.Errorf("node %q: %w", name, err)
		}
	}
	return figures, nil
}

// maxSummary bounds what a node tells.
const maxSummary = 64 << 20

// node adds the figures of one node's pods.
func (w *statsWatch) node(ctx context.Context, name string, figures map[types.UID]podFigures) error {
	if _, known := w.memory[name]; !known {
		node, err := client.Nodes.Get(ctx, w, "", name)
		if err != nil && !apierrors.IsForbidden(err) {
			return err
		}
		if w.memory == nil {
			w.memory = map[string]int64{}
		}
		if err == nil {
			w.memory[name] = node.Status.Capacity.Memory().Value()
		}
	}
	answer, err := w.open(ctx, "/api/v1/nodes/"+url.PathEscape(name)+"/proxy/stats/summary")
	if err != nil {
		return err
	}
	defer answer.Close()
	raw, err := io.ReadAll(io.LimitReader(answer, maxSummary))
	if err != nil {
		return err
	}
	var summary struct {
		Pods []podFigures `json:"pods"`
	}
	if err := json.Unmarshal(raw, &summary); err != nil {
		return fmt.Errorf("its figures: %w", err)
	}
	for _, p := range summary.Pods {
		figures[p.PodRef.UID] = p
	}
	return nil
}

// show prints a line a container.
func (w *statsWatch) show(pods []*corev1.Pod, now map[types.UID]podFigures) error {
	if w.clear {
		fmt.Fprint(w.out, "\x1b[2J\x1b[H")
	}
	rows := []any{}
	for _, pod := range pods {
		rows = append(rows, w.row(pod, now))
	}
	text, table := strings.CutPrefix(w.format, "table")
	switch text = strings.TrimSpace(text); {
	case text == "json":
		lines := json.NewEncoder(w.out)
		for _, r := range rows {
			if err := lines.Encode(r); err != nil {
				return err
			}
		}
		return nil
	case text != "":
		if table {
			rows = append([]any{statsHead}, rows...)
		}
		return templated(w.out, text, rows)
	}
	return templated(w.out, "{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.PIDs}}", append([]any{statsHead}, rows...))
}

// statsRow is what a container uses, with the names that docker's templates have.
type statsRow struct{ ID, Container, Name, CPUPerc, MemUsage, MemPerc, NetIO, PIDs string }

// statsHead are the columns' names.
//
//nolint:gochecknoglobals // a constant
var statsHead = statsRow{"ID", "CONTAINER", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "NET I/O", "PIDS"}

// row is a container's; what is not known, as of one that does not run, is two dashes, as
// in docker.
func (w *statsWatch) row(pod *corev1.Pod, now map[types.UID]podFigures) statsRow {
	r := statsRow{ID: shortID(idOf(pod)), Container: pod.Name, Name: pod.Name, CPUPerc: "--", MemUsage: "-- / --", MemPerc: "--", NetIO: "--", PIDs: "--"}
	f, ok := now[pod.UID]
	if !ok || !look(pod).running {
		return r
	}
	limit := pod.Spec.Containers[0].Resources.Limits.Memory().Value()
	if limit == 0 {
		limit = w.memory[pod.Spec.NodeName]
	}
	share := 0.0
	if limit > 0 {
		share = 100 * float64(f.Memory.WorkingSet) / float64(limit)
	}
	r.CPUPerc, r.MemUsage = fmt.Sprintf("%.2f%%", busy(w.before[pod.UID], f)), binary(f.Memory.WorkingSet)+" / "+binary(limit)
	r.MemPerc, r.NetIO, r.PIDs = fmt.Sprintf("%.2f%%", share), size(f.Network.Received)+" / "+size(f.Network.Sent), fmt.Sprint(f.Processes.Count)
	return r
}

// busy is the share of one processor that was used between two looks, in percent.
func busy(before, now podFigures) float64 {
	passed := now.CPU.Time.Sub(before.CPU.Time)
	if before.CPU.Time.IsZero() || passed <= 0 || now.CPU.Used < before.CPU.Used {
		return 0
	}
	return 100 * float64(now.CPU.Used-before.CPU.Used) / float64(passed.Nanoseconds())
}

// binary is a number of bytes by powers of 1024, as memory is counted.
func binary(n int64) string {
	value, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if value < 1024 {
			break
		}
		value, unit = value/1024, next
	}
	return fmt.Sprintf("%.4g%s", value, unit)
}
