package server

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// cadvisor is /metrics/cadvisor: the engine's own metrics of sandboxes and
// containers in the names that cAdvisor gave them, as text, and beside them how large
// the machine is and what all of it uses. Of an engine that tells whole numbers only,
// which all are that are asked over the CRI, the agent's own numbers go before: what
// containers were promised, when they started, their CPU time.
func (s *Server) cadvisor(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	lines, descriptors, err := s.measured(r.Context())
	if err != nil {
		http.Error(w, cri.Message(err), http.StatusInternalServerError)
		return
	}
	own := &page{}
	if s.cfg.Node != nil {
		sum, err := s.collect(r.Context(), false)
		if err == nil {
			own.machine()
		}
		_, exact := s.cfg.Engine.(cri.Sampler)
		switch {
		case err == nil && exact:
			own.disks()
			for _, m := range rootSamples(&sum.Node) {
				lines[m.Name] = append(lines[m.Name], m)
			}
		case err == nil:
			own.containers(s.cfg.Node.Pods(), sum.Pods)
		}
		own.family("container_scrape_error", "gauge", "1 if there was an error while getting container metrics, 0 otherwise")
		own.line("container_scrape_error", "", float64(one(err != nil)), time.Time{})
	}
	var b strings.Builder
	slices.SortFunc(descriptors, func(a, b *rt.MetricDescriptor) int { return strings.Compare(a.GetName(), b.GetName()) })
	for _, d := range descriptors {
		if list := lines[d.GetName()]; len(list) > 0 && !own.made[d.GetName()] {
			family(&b, d, list)
		}
	}
	fmt.Fprint(w, b.String(), own.text.String())
}

// measured are the engine's samples, by the metric's name, and what they are called. An
// engine in this process says more of them than the CRI can.
func (s *Server) measured(ctx context.Context) (map[string][]cri.Sample, []*rt.MetricDescriptor, error) {
	engine, ok := s.cfg.Engine.(cri.Metrics)
	if !ok {
		return nil, nil, nil
	}
	known, err := engine.ListMetricDescriptors(ctx, &rt.ListMetricDescriptorsRequest{})
	if err != nil {
		return nil, nil, err
	}
	lines := map[string][]cri.Sample{}
	if exact, ok := s.cfg.Engine.(cri.Sampler); ok {
		list, err := exact.Samples(ctx)
		for _, m := range list {
			lines[m.Name] = append(lines[m.Name], m)
		}
		return lines, known.GetDescriptors(), err
	}
	got, err := engine.ListPodSandboxMetrics(ctx, &rt.ListPodSandboxMetricsRequest{})
	add := func(list []*rt.Metric) {
		for _, m := range list {
			one := cri.Sample{Name: m.GetName(), Kind: m.GetMetricType(), Labels: m.GetLabelValues(), Value: float64(m.GetValue().GetValue()), At: m.GetTimestamp()}
			lines[one.Name] = append(lines[one.Name], one)
		}
	}
	for _, p := range got.GetPodMetrics() {
		add(p.GetMetrics())
		for _, c := range p.GetContainerMetrics() {
			add(c.GetMetrics())
		}
	}
	return lines, known.GetDescriptors(), err
}

func family(b *strings.Builder, d *rt.MetricDescriptor, list []cri.Sample) {
	kind := "gauge"
	if list[0].Kind == rt.MetricType_COUNTER {
		kind = "counter"
	}
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", d.GetName(), escape(d.GetHelp()), d.GetName(), kind)
	for _, m := range list {
		var labels []string
		for i, key := range d.GetLabelKeys() {
			if i < len(m.Labels) {
				labels = append(labels, fmt.Sprintf("%s=%s", key, strconv.Quote(m.Labels[i])))
			}
		}
		fmt.Fprintf(b, "%s{%s} %s", d.GetName(), strings.Join(labels, ","), strconv.FormatFloat(m.Value, 'g', -1, 64))
		if m.At > 0 {
			fmt.Fprintf(b, " %d", m.At/1e6) // of nanoseconds
		}
		b.WriteByte('\n')
	}
}

func escape(help string) string {
	return strings.NewReplacer("\\", "\\\\", "\n", "\\n").Replace(help)
}
