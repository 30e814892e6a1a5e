package apiserver

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

	"github.com/sampan-dev/sampan/control/apiserver/speak"
)

// Upstream's z-pages (KEP-4827, KEP-4828): what the server is and with which flags it
// was started, as text for people, or as an object of config.k8s.io for who names it.

// zName is what upstream calls its component.
const zName = "apiserver"

// zWarning is the head of the pages' text.
const zWarning = "\n%s %s\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"

// zMedia is what the pages are written in, in upstream's order.
var zMedia = []string{speak.JSON, speak.YAML, "text/plain"}

// zVersions are those of the objects, and whether one is on its way out.
var zVersions = map[string]bool{"v1alpha1": true, "v1beta1": false}

// zForm is in which form a page is wanted: as text if no version is set.
type zForm struct{ media, version string }

// zPage serves one page: object makes its object of a version, text its text.
type zPage struct {
	name   string
	kind   string
	object func(is metav1.TypeMeta) any
	text   func() string
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

// zPaths are the roots of what is there for whoever looks after the server.
var zPaths = []string{"/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"}

// zRoutes serves both pages.
func (s *Server) zRoutes(handle func(path string, h http.Handler)) {
	began := s.cfg.Now()
	status := func(is metav1.TypeMeta) statusz {
		return statusz{TypeMeta: is, Metadata: metav1.ObjectMeta{Name: zName}, StartTime: metav1.NewTime(began),
			UptimeSeconds: max(0, int64(s.cfg.Now().Sub(began).Seconds())), GoVersion: runtime.Version(),
			BinaryVersion: binaryVersion(), EmulationVersion: major + "." + minor, Paths: zPaths}
	}
	handle("/statusz", zPage{name: "statusz", kind: "Statusz",
		object: func(is metav1.TypeMeta) any { return status(is) },
		text:   func() string { return statusText(status(metav1.TypeMeta{})) }})
	handle("/flagz", zPage{name: "flagz", kind: "Flagz",
		object: func(is metav1.TypeMeta) any {
			return flagz{TypeMeta: is, Metadata: metav1.ObjectMeta{Name: zName}, Flags: s.cfg.Flags}
		},
		text: func() string { return flagText(s.cfg.Flags) }})
}

// binaryVersion is the version without what makes it ours.
func binaryVersion() string {
	plain, _, _ := strings.Cut(strings.TrimPrefix(gitVersion, "v"), "+")
	return plain
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

// ServeHTTP implements http.Handler.
func (p zPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, ok := zWanted(r.Header.Get("Accept"), p.kind)
	if !ok {
		refuse(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotAcceptable,
			Reason: metav1.StatusReasonNotAcceptable, Message: "only the following media types are accepted: " + strings.Join(zMedia, ", ")}})
		return
	}
	if f.version == "" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = fmt.Fprintf(w, zWarning+"%s", zName, p.name, p.text()) // the client has gone: nobody to tell
		return
	}
	body, err := p.encode(f, speak.Pretty(r))
	if err != nil {
		refuse(w, r, err)
		return
	}
	if zVersions[f.version] {
		w.Header().Set("Warning", fmt.Sprintf(`299 - "This version of the %s endpoint is deprecated. Please use a newer version."`, p.name))
	}
	w.Header().Set("Content-Type", fmt.Sprintf("%s;g=config.k8s.io;v=%s;as=%s", f.media, f.version, p.kind))
	_, _ = w.Write(body) // the client has gone: nobody to tell
}

func (p zPage) encode(f zForm, pretty bool) ([]byte, error) {
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

// zWanted chooses the form of a page of which kind is the object's kind. Text has no
// version, and objects have one.
func zWanted(accept, kind string) (zForm, bool) {
	if strings.TrimSpace(accept) == "" {
		return zForm{media: "text/plain"}, true
	}
	for _, clause := range speak.Clauses(accept) {
		for _, media := range zMedia {
			whole, _, _ := strings.Cut(media, "/")
			if clause.Media != media && clause.Media != "*/*" && clause.Media != whole+"/*" {
				continue
			}
			version, object := clause.Params["v"], clause.Params["as"] != "" || clause.Params["g"] != "" || clause.Params["v"] != ""
			_, known := zVersions[version]
			switch {
			case media == "text/plain" && !object:
				return zForm{media: media}, true
			case media != "text/plain" && known && clause.Params["g"] == "config.k8s.io" && clause.Params["as"] == kind:
				return zForm{media, version}, true
			}
		}
	}
	return zForm{}, false
}
