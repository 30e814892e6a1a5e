package server

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// cadvisor is /metrics/cadvisor: the engine's own metrics of sandboxes and
// containers in the names that cAdvisor gave them, as text. An engine without
// such metrics has an empty page.
func (s *Server) cadvisor(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	engine, ok := s.cfg.Engine.(cri.Metrics)
	if !ok {
		return
	}
	known, err := engine.ListMetricDescriptors(r.Context(), &rt.ListMetricDescriptorsRequest{})
	if err != nil {
		http.Error(w, cri.Message(err), http.StatusInternalServerError)
		return
	}
	got, err := engine.ListPodSandboxMetrics(r.Context(), &rt.ListPodSandboxMetricsRequest{})
	if err != nil {
		http.Error(w, cri.Message(err), http.StatusInternalServerError)
		return
	}
	lines := map[string][]*rt.Metric{}
	for _, p := range got.GetPodMetrics() {
		for _, m := range p.GetMetrics() {
			lines[m.GetName()] = append(lines[m.GetName()], m)
		}
		for _, c := range p.GetContainerMetrics() {
			for _, m := range c.GetMetrics() {
				lines[m.GetName()] = append(lines[m.GetName()], m)
			}
		}
	}
	var b strings.Builder
	descriptors := known.GetDescriptors()
	slices.SortFunc(descriptors, func(a, b *rt.MetricDescriptor) int { return strings.Compare(a.GetName(), b.GetName()) })
	for _, d := range descriptors {
		if list := lines[d.GetName()]; len(list) > 0 {
			family(&b, d, list)
		}
	}
	fmt.Fprint(w, b.String())
}

func family(b *strings.Builder, d *rt.MetricDescriptor, list []*rt.Metric) {
	kind := "gauge"
	if list[0].GetMetricType() == rt.MetricType_COUNTER {
		kind = "counter"
	}
	fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", d.GetName(), escape(d.GetHelp()), d.GetName(), kind)
	for _, m := range list {
		var labels []string
		for i, key := range d.GetLabelKeys() {
			if i < len(m.GetLabelValues()) {
				labels = append(labels, fmt.Sprintf("%s=%s", key, strconv.Quote(m.GetLabelValues()[i])))
			}
		}
		fmt.Fprintf(b, "%s{%s} %d", d.GetName(), strings.Join(labels, ","), m.GetValue().GetValue())
		if t := m.GetTimestamp(); t > 0 {
			fmt.Fprintf(b, " %d", t/1e6) // of nanoseconds
		}
		b.WriteByte('\n')
	}
}

func escape(help string) string {
	return strings.NewReplacer("\\", "\\\\", "\n", "\\n").Replace(help)
}
