// Package zpages serves upstream's z-pages (KEP-4827, KEP-4828): what a component is and
// with which flags it was started, as text for people, or as an object of config.k8s.io
// for who names it.
package zpages

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/speak"
)

// Classified stands for the value of a flag that is nobody's business, as upstream has it.
const Classified = "CLASSIFIED"

// warning is the head of the pages' text.
const warning = "\n%s %s\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"

// media is what the pages are written in, in upstream's order.
var media = []string{speak.JSON, speak.YAML, "text/plain"}

// versions are those of the objects, and whether one is on its way out.
var versions = map[string]bool{"v1alpha1": true, "v1beta1": false}

// Component is whose pages they are.
type Component struct {
	// Name is what upstream calls it: apiserver, kubelet.
	Name string
	// Version is upstream's that it is made after, v1.37.1; what is behind a "+" is not
	// shown.
	Version string
	// Began is when it was started.
	Began time.Time
	// Now is the time; nil means the clock's.
	Now func() time.Time
	// Paths are the roots of what there is for whoever looks after it, sorted.
	Paths []string
	// Flags are those that it was started with, by name; nothing secret.
	Flags map[string]string
}

// Statusz is the page /statusz.
func (c Component) Statusz() http.Handler {
	return page{of: c.Name, name: "statusz", kind: "Statusz",
		object: func(is metav1.TypeMeta) any { return c.status(is) },
		text:   func() string { return statusText(c.status(metav1.TypeMeta{})) }}
}

// Flagz is the page /flagz.
func (c Component) Flagz() http.Handler {
	return page{of: c.Name, name: "flagz", kind: "Flagz",
		object: func(is metav1.TypeMeta) any {
			return flagz{TypeMeta: is, Metadata: metav1.ObjectMeta{Name: c.Name}, Flags: c.Flags}
		},
		text: func() string { return flagText(c.Flags) }}
}

// statusz is the object of the page of that name.
type statusz struct {
	metav1.TypeMeta  `json:",inline"`
	Metadata         metav1.ObjectMeta `json:"metadata"`
	StartTime        metav1.Time       `json:"startTime"`
	UptimeSeconds    int64             `json:"uptimeSeconds"`
	GoVersion        string            `json:"goVersion"`
	BinaryVersion    string            `json:"binaryVersion"`
	EmulationVersion string            `json:"emulationVersion"`
	Paths            []string          `json:"paths"`
}

// flagz is the object of the page of that name.
type flagz struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ObjectMeta `json:"metadata"`
	Flags           map[string]string `json:"flags"`
}

func (c Component) status(is metav1.TypeMeta) statusz {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	binary, _, _ := strings.Cut(strings.TrimPrefix(c.Version, "v"), "+")
	emulated := binary
	if parts := strings.SplitN(binary, ".", 3); len(parts) == 3 {
		emulated = parts[0] + "." + parts[1]
	}
	return statusz{TypeMeta: is, Metadata: metav1.ObjectMeta{Name: c.Name}, StartTime: metav1.NewTime(c.Began),
		UptimeSeconds: max(0, int64(now().Sub(c.Began).Seconds())), GoVersion: runtime.Version(),
		BinaryVersion: binary, EmulationVersion: emulated, Paths: c.Paths}
}

func statusText(is statusz) string {
	up := time.Duration(is.UptimeSeconds) * time.Second
	return fmt.Sprintf(`
Started: %s
Up: %d hr %02d min %02d sec
Go version: %s
Binary version: %s
Emulation version: %s
Paths: %s
`, is.StartTime.Format(time.UnixDate), int(up.Hours()), int(up.Minutes())%60, int(up.Seconds())%60,
		is.GoVersion, is.BinaryVersion, is.EmulationVersion, strings.Join(is.Paths, " "))
}

func flagText(flags map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		fmt.Fprintf(&b, "%s: %s\n", name, flags[name])
	}
	return b.String()
}

// form is in which form a page is wanted: as text if no version is set.
type form struct{ media, version string }

// page serves one page: object makes its object of a version, text its text.
type page struct {
	of     string
	name   string
	kind   string
	object func(is metav1.TypeMeta) any
	text   func() string
}

// ServeHTTP implements http.Handler.
func (p page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := wanted(r.Header.Get("Accept"), p.kind)
	if !ok {
		speak.Refuse(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotAcceptable,
			Reason: metav1.StatusReasonNotAcceptable, Message: "only the following media types are accepted: " + strings.Join(media, ", ")}})
		return
	}
	if f.version == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, warning+"%s", p.of, p.name, p.text()) // the client has gone: nobody to tell
		return
	}
	body, err := p.encode(f, speak.Pretty(r))
	if err != nil {
		speak.Refuse(w, r, apierrors.NewInternalError(err))
		return
	}
	if versions[f.version] {
		w.Header().Set("Warning", fmt.Sprintf(`299 - "This version of the %s endpoint is deprecated. Please use a newer version."`, p.name))
	}
	w.Header().Set("Content-Type", fmt.Sprintf("%s;g=config.k8s.io;v=%s;as=%s", f.media, f.version, p.kind))
	_, _ = w.Write(body) // the client has gone: nobody to tell
}

func (p page) encode(f form, pretty bool) ([]byte, error) {
	data, err := json.Marshal(p.object(metav1.TypeMeta{Kind: p.kind, APIVersion: "config.k8s.io/" + f.version}))
	switch {
	case err != nil:
		return nil, fmt.Errorf("encode %q: %w", p.name, err)
	case f.media == speak.YAML:
		return speak.InYAML(data)
	case pretty:
		return speak.Indented(json.RawMessage(data)), nil
	}
	return append(data, '\n'), nil
}

// wanted chooses the form of a page of which kind is the object's kind. Text has no
// version, and objects have one.
func wanted(accept, kind string) (form, bool) {
	if strings.TrimSpace(accept) == "" {
		return form{media: "text/plain"}, true
	}
	for _, clause := range speak.Clauses(accept) {
		for _, name := range media {
			whole, _, _ := strings.Cut(name, "/")
			if clause.Media != name && clause.Media != "*/*" && clause.Media != whole+"/*" {
				continue
			}
			version, object := clause.Params["v"], clause.Params["as"] != "" || clause.Params["g"] != "" || clause.Params["v"] != ""
			_, known := versions[version]
			switch {
			case name == "text/plain" && !object:
				return form{media: name}, true
			case name != "text/plain" && known && clause.Params["g"] == "config.k8s.io" && clause.Params["as"] == kind:
				return form{name, version}, true
			}
		}
	}
	return form{}, false
}
