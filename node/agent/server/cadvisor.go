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
// containers in the names that cAdvisor gave them, as text, and beside them what
// dashboards ask for and only the agent knows: what containers were promised, when
// they started, how large the machine is. CPU time is the agent's too, since the
// engine's metrics are whole numbers.
func (s *Server) cadvisor(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	own := &page{}
	if s.cfg.Node != nil {
		if sum, err := s.collect(r.Context(), false); err == nil {
			own.machine()
			own.containers(s.cfg.Node.Pods(), sum.Pods)
		}
	}
	engine, ok := s.cfg.Engine.(cri.Metrics)
	if !ok {
		fmt.Fprint(w, own.text.String())
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
		if list := lines[d.GetName()]; len(list) > 0 && !own.made[d.GetName()] {
			family(&b, d, list)
		}
	}
	fmt.Fprint(w, b.String(), own.text.String())
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
