package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// Limits of what simulate -f reads.
const (
	maxManifest        = 16 << 20
	maxManifestObjects = 10_000
	// defaultSimulation is how long a simulation may take.
	defaultSimulation = time.Minute
)

// ErrUnfulfilled is the error of a simulation in which not all that was asked for
// comes about.
var ErrUnfulfilled = errors.New("not all of it would come about")

// Simulation is one question: Drain names a node, or Objects are what is applied.
type Simulation struct {
	// Live is the caller's connection to the cluster.
	Live client.Transport
	// Namespace is that of objects which name none.
	Namespace string
	Objects   []*unstructured.Unstructured
	Drain     string
	// Placing is how the live cluster's scheduler was told to work.
	Placing explain.Placing
	// Log has all that the simulated components log written to standard error.
	Log bool
}

func simulateCommand(p Program, s *Settings) *cobra.Command {
	o := simulateFlags{}
	cmd := &cobra.Command{
		Use: "simulate -f FILE", Short: "Say what would happen, without doing it", Args: cobra.NoArgs,
		Long: `Say what would happen if objects were applied, or a node drained. The real scheduler
and controllers act on a copy of the cluster's state, as far as you may read it;
the cluster itself does not change. The exit code is 0 if all of it would come
about, and 1 if not.

  sampan simulate -f pods.yaml
  sampan simulate drain NODE`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			objects, err := readManifest(cmd.InOrStdin(), o.file)
			if err != nil {
				return err
			}
			return o.run(cmd, p, s, Simulation{Objects: objects})
		},
	}
	drain := &cobra.Command{
		Use: "drain NODE", Short: "Say what would happen if a node were drained", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, p, s, Simulation{Drain: args[0]}) },
	}
	cmd.Flags().StringVarP(&o.file, "filename", "f", "", "file of what would be applied, - for standard input")
	_ = cmd.MarkFlagRequired("filename")
	flags := cmd.PersistentFlags()
	flags.StringVarP(&o.namespace, "namespace", "n", "", "namespace of objects that name none")
	flags.StringVarP(&o.output, "output", "o", "text", "text or json")
	flags.DurationVar(&o.timeout, "timeout", defaultSimulation, "how long it may take to come to rest")
	flags.BoolVarP(&o.verbose, "verbose", "v", false, "log what the simulated components do")
	cmd.AddCommand(drain)
	return cmd
}

type simulateFlags struct {
	file, namespace, output string
	timeout                 time.Duration
	verbose                 bool
}

func (o *simulateFlags) run(cmd *cobra.Command, p Program, s *Settings, q Simulation) error {
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("--output %q: want text or json", o.output)
	}
	server, err := s.connect()
	if err != nil {
		return err
	}
	q.Live, q.Namespace, q.Log = server, o.namespace, o.verbose
	if q.Namespace == "" {
		q.Namespace = server.namespace
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	var unread []string
	if q.Placing, err = server.records.Placing(ctx); apierrors.IsForbidden(err) {
		unread = []string{"how the scheduler is configured"}
	} else if err != nil {
		return unanswered(err)
	}
	forecast, err := p.Simulate(ctx, q)
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	forecast.Unread = append(forecast.Unread, unread...)
	if o.output == "json" {
		encoder := json.NewEncoder(cmd.OutOrStdout())
		encoder.SetIndent("", "  ")
		err = encoder.Encode(forecast)
	} else {
		err = showForecast(cmd.OutOrStdout(), forecast)
	}
	if err == nil && !forecast.Fulfilled() {
		return ErrUnfulfilled
	}
	return err
}

// readManifest reads YAML or JSON documents; lists are taken apart.
func readManifest(stdin io.Reader, name string) ([]*unstructured.Unstructured, error) {
	from := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	}
	limited := &io.LimitedReader{R: from, N: maxManifest + 1}
	decoder := yaml.NewYAMLOrJSONDecoder(limited, 4096)
	var all []*unstructured.Unstructured
	for len(all) <= maxManifestObjects {
		obj := &unstructured.Unstructured{}
		err := decoder.Decode(&obj.Object)
		if limited.N == 0 { // what is cut off may be whole documents
			return nil, fmt.Errorf("%s has more than %d bytes", name, maxManifest)
		}
		if errors.Is(err, io.EOF) {
			if len(all) == 0 {
				return nil, fmt.Errorf("%s: no objects in it", name)
			}
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if len(obj.Object) == 0 {
			continue
		}
		if !obj.IsList() {
			all = append(all, obj)
			continue
		}
		err = obj.EachListItem(func(item runtime.Object) error {
			if one, ok := item.(*unstructured.Unstructured); ok {
				all = append(all, one)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil, fmt.Errorf("%s: more than %d objects", name, maxManifestObjects)
}

// showForecast writes a forecast for people.
func showForecast(w io.Writer, f *explain.Forecast) error {
	say := &teller{w: w}
	say.line("Read %d objects at revision %s; nothing of the cluster has changed.", f.Objects, f.Revision)
	for _, kind := range f.Unread {
		say.line("You may not read %s: the forecast is without.", kind)
	}
	say.losses("Refused by the API server:", f.Refused, "  %s: %s")
	say.placements("Would be placed:", f.Placed)
	say.placements("Would stay pending:", f.Pending)
	say.losses("Would be gone:", f.Gone, "  %s: %s")
	say.losses("Evictions that stay refused:", f.Blocked, "  %s: %s")
	say.losses("Left where they are:", f.Kept, "  %s: %s")
	if len(f.Refused)+len(f.Placed)+len(f.Pending)+len(f.Gone)+len(f.Blocked) == 0 {
		say.line("No pod would be placed, moved or removed.")
	}
	if !f.Settled {
		say.line("It has not come to rest in the time given: this is how far it got. --timeout gives it more.")
	}
	return say.err
}

// teller writes lines until one fails.
type teller struct {
	w   io.Writer
	err error
}

func (t *teller) line(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format+"\n", args...)
	}
}

func (t *teller) placements(title string, all []explain.Placement) {
	if len(all) > 0 {
		t.line("%s", title)
	}
	for _, p := range all {
		text := "  " + p.Namespace + "/" + p.Name
		if p.Live {
			text += " (there already)"
		}
		if p.Owner != "" {
			text += " of " + p.Owner
		}
		if p.Node != "" {
			text += " on " + p.Node
		}
		t.line("%s%s", text, after(": ", p.Reason))
	}
}

func (t *teller) losses(title string, all []explain.Loss, format string) {
	if len(all) > 0 {
		t.line("%s", title)
	}
	for _, l := range all {
		name := l.Name
		if l.Namespace != "" {
			name = l.Namespace + "/" + name
		}
		t.line(format, name, l.Reason)
	}
}
