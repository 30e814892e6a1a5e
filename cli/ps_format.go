package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"text/template"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// psFormat is how ps shows containers, and which.
type psFormat struct {
	quiet, whole bool
	// sizes has a column of what containers have written; last is how many of the newest,
	// 0 for all.
	sizes   bool
	last    int
	format  string
	filters []string
	// written says what a container has written, for sizes.
	written func(*corev1.Pod) string
}

// psRow is one container, with the names that docker's templates have.
type psRow struct {
	ID, Name, Names, Namespace, Image, Command string
	CreatedAt, RunningFor, Ports, State        string
	Status, HealthStatus, Labels               string
	Size, Mounts, LocalVolumes, Networks       string
	labels                                     map[string]string
}

// Label is docker's {{.Label "NAME"}}.
func (r psRow) Label(name string) string { return r.labels[name] }

// wantsSizes says whether a template asks for what is only measured when it is wanted.
func (f psFormat) wantsSizes() bool { return f.sizes || strings.Contains(f.format, ".Size") }

// maxCommand is how much of a command ps shows.
const maxCommand = 30

// id is a container's ID, or enough of it for a person.
func (f psFormat) id(p *corev1.Pod) string {
	if f.whole {
		return idOf(p)
	}
	return shortID(idOf(p))
}

func (f psFormat) row(p *corev1.Pod) psRow {
	command := []rune(p.Annotations[runCommandAnnotation])
	if len(command) > maxCommand && !f.whole {
		command = append(command[:maxCommand-1], '…')
	}
	var labels []string
	for k, v := range p.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	r := psRow{
		ID: f.id(p), Name: p.Name, Names: p.Name, Namespace: p.Namespace, Image: p.Spec.Containers[0].Image, Command: string(command),
		CreatedAt: p.CreationTimestamp.Format(time.RFC3339), RunningFor: age(p.CreationTimestamp.Time) + " ago",
		Ports: published(p), State: stateOf(p), Status: containerStatus(p), Labels: strings.Join(labels, ","),
		Networks: strings.Join(networksOfPod(p), ","), labels: containerLabels(p),
	}
	if health := healthOf(p, time.Now()); health != healthNone {
		r.HealthStatus = health
	}
	var mounts []string
	local := 0
	for _, m := range mountsOf(p) {
		if mounts = append(mounts, cmp.Or(m.Name, m.Source, m.Destination)); m.Type == "volume" {
			local++
		}
	}
	r.Mounts, r.LocalVolumes = strings.Join(mounts, ","), strconv.Itoa(local)
	if f.written != nil {
		r.Size = f.written(p)
	}
	return r
}

// print writes a table, a line of JSON each, or what a template makes of each.
func (f psFormat) print(out io.Writer, pods []*corev1.Pod) error {
	if f.quiet {
		for _, p := range pods {
			fmt.Fprintln(out, p.Name)
		}
		return nil
	}
	text, table := strings.CutPrefix(f.format, "table")
	if text = strings.TrimSpace(text); text != "" {
		return f.template(out, pods, text, table)
	}
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	more := func(text string) string {
		if f.sizes {
			return "\t" + text
		}
		return ""
	}
	fmt.Fprintln(w, "NAME\tIMAGE\tCOMMAND\tCREATED\tSTATUS\tPORTS"+more("SIZE"))
	for _, p := range pods {
		r := f.row(p)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s%s\n", r.Name, r.Image, r.Command, r.RunningFor, r.Status, r.Ports, more(r.Size))
	}
	return w.Flush()
}

// template writes what a template makes of each; a table has its tabs aligned, and
// the fields' names above.
func (f psFormat) template(out io.Writer, pods []*corev1.Pod, text string, table bool) error {
	rows := []any{}
	if table {
		rows = append(rows, psRow{
			ID: "CONTAINER ID", Name: "NAME", Names: "NAMES", Namespace: "NAMESPACE", Image: "IMAGE", Command: "COMMAND", CreatedAt: "CREATED AT",
			RunningFor: "CREATED", Ports: "PORTS", State: "STATE", Status: "STATUS", HealthStatus: "HEALTH", Labels: "LABELS", Size: "SIZE", Mounts: "MOUNTS", LocalVolumes: "LOCAL VOLUMES", Networks: "NETWORKS",
		})
	}
	for _, p := range pods {
		rows = append(rows, f.row(p))
	}
	return templated(out, text, rows)
}

// templated writes what a template makes of each, a line each, with tabs aligned; "json"
// is a template too.
func templated(out io.Writer, text string, rows []any) error {
	return templatedAs(out, text, rows, "missingkey=error")
}

// templatedAs is templated, with an option of templates.
func templatedAs(out io.Writer, text string, rows []any, option string) error {
	if text == "json" {
		text = "{{json .}}"
	}
	text = strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(text)
	each, err := template.New("--format").Option(option).Funcs(template.FuncMap{
		"json":  func(v any) (string, error) { raw, err := json.Marshal(v); return string(raw), err },
		"upper": strings.ToUpper, "lower": strings.ToLower, "join": joined, "println": fmt.Sprintln,
	}).Parse(text)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 8, 3, ' ', 0)
	for _, r := range rows {
		if err := errors.Join(each.Execute(w, r), endLine(w)); err != nil {
			return err
		}
	}
	return w.Flush()
}

// joined is docker's join: of words, however they have been read.
func joined(words any, between string) (string, error) {
	switch all := words.(type) {
	case []string:
		return strings.Join(all, between), nil
	case []any:
		var texts []string
		for _, w := range all {
			texts = append(texts, fmt.Sprint(w))
		}
		return strings.Join(texts, between), nil
	}
	return "", fmt.Errorf("join: %T is no list", words)
}

func endLine(w io.Writer) error {
	_, err := fmt.Fprintln(w)
	return err
}

// stateOf is docker's word for how a container is.
func stateOf(p *corev1.Pod) string {
	s := look(p)
	switch {
	case s.ended:
		return "exited"
	case isPaused(p):
		return "paused"
	case s.running:
		return "running"
	case s.restarts > 0 || s.started:
		return "restarting"
	}
	return "created"
}

// byStatus says whether the filters themselves choose between what runs and what
// has ended.
func (f psFormat) byStatus() bool {
	return slices.ContainsFunc(f.filters, func(t string) bool { return strings.HasPrefix(t, "status=") || strings.HasPrefix(t, "exited=") })
}

// psFilters reads --filter: of one name any must fit, of different ones all.
// all are those that there are, of which before and since name one.
func psFilters(texts []string, all []*corev1.Pod) (func(*corev1.Pod) bool, error) {
	byName := filters[*corev1.Pod]{}
	for _, text := range texts {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("--filter %q: want NAME=VALUE", text)
		}
		fits, err := psFilter(name, value)
		if name == "before" || name == "since" {
			fits, err = psBeside(all, name, value)
		}
		if err != nil {
			return nil, fmt.Errorf("--filter %q: %w", text, err)
		}
		byName[name] = append(byName[name], fits)
	}
	return byName.fit, nil
}

// psBeside is a filter for those that were made before, or since, one that there is.
func psBeside(all []*corev1.Pod, name, value string) (func(*corev1.Pod) bool, error) {
	i := slices.IndexFunc(all, func(p *corev1.Pod) bool {
		return p.Name == podsName(value) || len(value) >= leastID && strings.HasPrefix(idOf(p), digits(value))
	})
	if i < 0 {
		return nil, fmt.Errorf("container %q is not found", value)
	}
	made := all[i].CreationTimestamp
	return func(p *corev1.Pod) bool {
		if name == "before" {
			return p.CreationTimestamp.Before(&made)
		}
		return made.Before(&p.CreationTimestamp)
	}, nil
}

func psFilter(name, value string) (func(*corev1.Pod) bool, error) {
	switch name {
	case "name":
		is, err := regexp.Compile(value)
		if err != nil {
			return nil, err
		}
		return func(p *corev1.Pod) bool { return is.MatchString(p.Name) || is.MatchString("/"+p.Name) }, nil
	case "status":
		if !slices.Contains([]string{"created", "running", "paused", "restarting", "exited", "dead", "removing"}, value) { // none is of the last two
			return nil, errors.New("want created, running, paused, restarting or exited")
		}
		return func(p *corev1.Pod) bool { return stateOf(p) == value }, nil
	case "label":
		key, want, exact := strings.Cut(value, "=")
		return func(p *corev1.Pod) bool {
			got, ok := p.Labels[key]
			if !ok {
				got, ok = p.Annotations[key]
			}
			return ok && (!exact || got == want)
		}, nil
	case "health":
		if !slices.Contains([]string{healthy, unhealthy, healthStarting, healthNone}, value) {
			return nil, errors.New("want healthy, unhealthy, starting or none")
		}
		return func(p *corev1.Pod) bool { return healthOf(p, time.Now()) == value }, nil
	case "ancestor":
		return func(p *corev1.Pod) bool { return p.Spec.Containers[0].Image == value }, nil
	case "id":
		return func(p *corev1.Pod) bool { return strings.HasPrefix(idOf(p), digits(value)) }, nil
	case "network":
		return func(p *corev1.Pod) bool { return slices.Contains(networksOfPod(p), value) }, nil
	case "volume":
		return func(p *corev1.Pod) bool {
			return slices.ContainsFunc(mountsOf(p), func(m mountView) bool { return value == m.Destination || value == m.Name || value == m.Source })
		}, nil
	case "publish", "expose":
		port, protocol, _ := strings.Cut(value, "/")
		first, n, err := portRange(port)
		if err != nil {
			return nil, err
		}
		return func(p *corev1.Pod) bool {
			return slices.ContainsFunc(p.Spec.Containers[0].Ports, func(c corev1.ContainerPort) bool {
				at := c.HostPort
				if name == "expose" {
					at = c.ContainerPort
				}
				return at >= first && at < first+n && (protocol == "" || strings.EqualFold(protocol, string(c.Protocol)))
			})
		}, nil
	case "exited":
		code, err := strconv.Atoi(value)
		if err != nil {
			return nil, errors.New("want an exit code")
		}
		return func(p *corev1.Pod) bool { s := look(p); return s.ended && s.code == code }, nil
	}
	return nil, errors.New("want name, id, status, label, ancestor, exited, health, network, volume, publish, expose, before or since")
}
