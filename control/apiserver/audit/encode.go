package audit

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// encode appends the event to room in JSON, just as json.Marshal has it: a line is
// written for nearly every request, and what finds its way by reflection cost a tenth
// of one.
func (e *Event) encode(room []byte) ([]byte, error) {
	w := writer{b: room}
	w.b = append(w.b, '{')
	w.text("kind", e.Kind)
	w.text("apiVersion", e.APIVersion)
	w.text("level", string(e.Level))
	w.some("auditID", e.AuditID)
	w.text("stage", string(e.Stage))
	w.some("requestURI", e.RequestURI)
	w.text("verb", e.Verb)
	w.name("user")
	w.user(&e.User)
	if e.Impersonated != nil {
		w.name("impersonatedUser")
		w.user(e.Impersonated)
	}
	if e.Authentication != nil {
		w.value("authenticationMetadata", e.Authentication)
	}
	w.texts("sourceIPs", e.SourceIPs)
	w.some("userAgent", e.UserAgent)
	if e.Object != nil {
		w.name("objectRef")
		w.object(e.Object)
	}
	if e.ResponseStatus != nil {
		w.name("responseStatus")
		w.status(e.ResponseStatus)
	}
	if len(e.RequestObject) > 0 {
		w.value("requestObject", e.RequestObject)
	}
	if len(e.ResponseObject) > 0 {
		w.value("responseObject", e.ResponseObject)
	}
	w.moment("requestReceivedTimestamp", e.Received)
	w.moment("stageTimestamp", e.Reached)
	if len(e.Annotations) > 0 {
		w.name("annotations")
		w.b = append(w.b, '{')
		keys := make([]string, 0, 8) // mostly there are two
		for key := range e.Annotations {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		for _, key := range keys {
			w.text(key, e.Annotations[key])
		}
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, '}')
	return w.b, w.err
}

// writer appends JSON.
type writer struct {
	b   []byte
	err error
}

// name begins a member of an object, after a comma unless it is the first.
func (w *writer) name(name string) {
	if last := w.b[len(w.b)-1]; last != '{' {
		w.b = append(w.b, ',')
	}
	w.quote(name)
	w.b = append(w.b, ':')
}

func (w *writer) text(name, value string) {
	w.name(name)
	w.quote(value)
}

// some is text that is left out when it is empty.
func (w *writer) some(name, value string) {
	if value != "" {
		w.text(name, value)
	}
}

func (w *writer) texts(name string, values []string) {
	if len(values) == 0 {
		return
	}
	w.name(name)
	w.list(values)
}

func (w *writer) list(values []string) {
	w.b = append(w.b, '[')
	for i, v := range values {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.quote(v)
	}
	w.b = append(w.b, ']')
}

// quote writes a string; one that needs escapes is left to encoding/json.
func (w *writer) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			w.any(s)
			return
		}
	}
	w.b = append(append(append(w.b, '"'), s...), '"')
}

// value writes what is encoded, or knows how to encode itself.
func (w *writer) value(name string, v any) {
	w.name(name)
	w.any(v)
}

func (w *writer) any(v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		w.err = err
		raw = []byte("null")
	}
	w.b = append(w.b, raw...)
}

func (w *writer) user(u *authenticationv1.UserInfo) {
	w.b = append(w.b, '{')
	w.some("username", u.Username)
	w.some("uid", u.UID)
	w.texts("groups", u.Groups)
	if len(u.Extra) > 0 {
		w.name("extra")
		w.b = append(w.b, '{')
		for _, key := range slices.Sorted(maps.Keys(u.Extra)) {
			w.name(key)
			if values := u.Extra[key]; values == nil {
				w.b = append(w.b, "null"...)
			} else {
				w.list(values)
			}
		}
		w.b = append(w.b, '}')
	}
	w.b = append(w.b, '}')
}

func (w *writer) object(o *Object) {
	w.b = append(w.b, '{')
	w.some("resource", o.Resource)
	w.some("namespace", o.Namespace)
	w.some("name", o.Name)
	w.some("apiGroup", o.APIGroup)
	w.some("apiVersion", o.APIVersion)
	w.some("subresource", o.Subresource)
	w.b = append(w.b, '}')
}

// status writes the status of an answer: mostly, a code and nothing else.
func (w *writer) status(s *metav1.Status) {
	if *s != (metav1.Status{Code: s.Code}) || s.Code == 0 {
		w.any(s)
		return
	}
	w.b = append(w.b, `{"metadata":{},"code":`...)
	w.b = append(strconv.AppendInt(w.b, int64(s.Code), 10), '}')
}

func (w *writer) moment(name string, t metav1.MicroTime) {
	w.name(name)
	if t.IsZero() {
		w.b = append(w.b, "null"...)
		return
	}
	// As metav1.RFC3339Micro has it; for its first half Go has a short way.
	at := t.UTC()
	w.b = at.AppendFormat(append(w.b, '"'), time.RFC3339)
	dot := len(w.b) - len("Z")
	w.b = strconv.AppendInt(w.b[:dot], 1e6+int64(at.Nanosecond()/1e3), 10)
	w.b[dot] = '.' // in the place of the million, which is there for leading zeros
	w.b = append(w.b, 'Z', '"')
}
