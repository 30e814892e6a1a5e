// Package speak answers in the media type that a client asks for, where the generic
// handler of resources has no part: discovery documents, and refusals that come before
// a request has reached it. Upstream's rules: the first that the client prefers and the
// server has; JSON for those who do not care.
package speak

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"
)

// The media types that are spoken.
const (
	JSON     = "application/json"
	YAML     = "application/yaml"
	Protobuf = "application/vnd.kubernetes.protobuf"
	CBOR     = "application/cbor"
)

// All are they, in upstream's order.
var all = []string{JSON, YAML, Protobuf, CBOR}

// maxChoices bounds an Accept header.
const maxChoices = 32

// Choice is one of the things that a client accepts.
type Choice struct {
	// Media is one of the media types above; of a Clause, whatever the client says.
	Media string
	// Params are the parameters, such as "as".
	Params map[string]string
}

// Vagueness is how much a client leaves open: among equals, what is named comes before
// what may be anything.
func Vagueness(media string) int { return strings.Count(media, "*") }

// Clause reads one alternative of an Accept header, and how much it is liked. As
// upstream's reader, it finds no fault: what is no parameter is nothing, and names are
// those that they are written as.
func Clause(text string) (c Choice, q float64) {
	name, rest, more := strings.Cut(text, ";")
	c.Media, q = strings.TrimSpace(name), 1
	for more {
		var param string
		param, rest, more = strings.Cut(rest, ";")
		key, value, ok := strings.Cut(param, "=")
		if !ok {
			continue
		}
		if c.Params == nil {
			c.Params = map[string]string{}
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		c.Params[key] = value
		if liked, err := strconv.ParseFloat(value, 64); key == "q" && err == nil {
			q = liked
		}
	}
	return c, q
}

// Clauses are what an Accept header says, the best first.
func Clauses(accept string) []Choice {
	type weighed struct {
		Choice
		q float64
	}
	var found []weighed
	for i, text := range strings.Split(accept, ",") {
		if i == maxChoices {
			break
		}
		c, q := Clause(text)
		found = append(found, weighed{c, q})
	}
	slices.SortStableFunc(found, func(a, b weighed) int {
		return cmp.Or(-cmp.Compare(a.q, b.q), cmp.Compare(Vagueness(a.Media), Vagueness(b.Media)))
	})
	choices := make([]Choice, len(found))
	for i := range found {
		choices[i] = found[i].Choice
	}
	return choices
}

// Choices are what an Accept header allows of what is spoken, the best first. None
// means that nothing is acceptable; no header, that anything is.
func Choices(h http.Header) []Choice {
	found := Clauses(cmp.Or(strings.Join(h.Values("Accept"), ","), "*/*"))
	for i := range found {
		if found[i].Media == "*/*" || found[i].Media == "application/*" {
			found[i].Media = JSON
		}
	}
	return slices.DeleteFunc(found, func(c Choice) bool { return !slices.Contains(all, c.Media) })
}

// All are the media types that are spoken, as upstream lists them.
func All() string { return strings.Join(all, ", ") }

// Named says that one of the names in a header, parameters aside, is in a list as that
// of All. It is how upstream chooses the code that serves a request, before that code
// looks closer.
func Named(header, list string) bool {
	known := strings.Split(list, ", ")
	for text := range strings.SplitSeq(header, ",") {
		name, _, _ := strings.Cut(text, ";")
		if name = strings.TrimSpace(name); name == "*/*" || slices.Contains(known, name) {
			return true
		}
	}
	return false
}

// NotProduced is upstream's 406 for who names none of the media types in a list.
func NotProduced(list string) *apierrors.StatusError {
	return apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "", schema.GroupResource{}, "",
		"406: Not Acceptable\n\nAvailable representations: "+list, 0, false)
}

// NotAcceptable is upstream's 406 for who accepts nothing that is spoken.
func NotAcceptable() *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + All()}}
}

// Encode writes an object that names its kind and version.
func Encode(media string, obj runtime.Object) ([]byte, error) {
	switch media {
	case JSON:
		data, err := json.Marshal(obj)
		return append(data, '\n'), err
	case YAML:
		data, err := json.Marshal(obj)
		if err != nil {
			return nil, err
		}
		return InYAML(data)
	case Protobuf:
		var b bytes.Buffer
		err := protobuf.NewSerializer(nil, nil).Encode(obj, &b)
		return b.Bytes(), err
	case CBOR:
		var b bytes.Buffer
		err := cbor.NewSerializer(nil, nil).Encode(obj, &b)
		return b.Bytes(), err
	}
	return nil, fmt.Errorf("media type %q is not spoken", media)
}

// InYAML is YAML for JSON. A string may hold what JSON writes as it is and YAML takes
// in an escaped form alone: DEL, say.
func InYAML(data []byte) ([]byte, error) {
	if at := bytes.IndexFunc(data, unprintable); at >= 0 {
		plain := append(make([]byte, 0, len(data)+64), data[:at]...)
		for _, r := range string(data[at:]) {
			if unprintable(r) {
				plain = fmt.Appendf(plain, `\u%04x`, r)
			} else {
				plain = utf8.AppendRune(plain, r)
			}
		}
		data = plain
	}
	return yaml.JSONToYAML(data)
}

// unprintable says that YAML has no such character but in an escaped form, or that it
// ends a line there (YAML 1.2.2, 5.1). Of those that JSON escapes itself, nothing is
// said.
func unprintable(r rune) bool {
	return r >= 0x7f && r < 0xa0 || r == 0xfffe || r == 0xffff
}

// Manner is how something is written.
type Manner struct {
	// Media is one of the media types above.
	Media string
	// Pretty asks for line breaks, for people.
	Pretty bool
}

// OfErrors is how errors are told to who sent r: in the first media type of which the
// client wants nothing but that. ok is false when that is none of those that are spoken;
// then it is JSON.
func OfErrors(r *http.Request) (m Manner, ok bool) {
	for _, c := range Choices(r.Header) {
		if c.Params["as"] == "" && c.Params["g"] == "" && c.Params["v"] == "" {
			return Manner{c.Media, c.Params["pretty"] == "1" || Pretty(r)}, true
		}
	}
	return Manner{Media: JSON}, false
}

// Pretty says that a person reads the answer: the URL says so, or the program that asks
// is one that shows what it gets.
func Pretty(r *http.Request) bool {
	if p := r.URL.Query().Get("pretty"); p != "" {
		want, err := strconv.ParseBool(p)
		return err == nil && want
	}
	agent := r.UserAgent()
	return strings.HasPrefix(agent, "curl") || strings.HasPrefix(agent, "Wget") || strings.HasPrefix(agent, "Mozilla/5.0")
}

// Indented is an object in JSON for who accepts nothing that is spoken.
func Indented(obj any) []byte {
	data, _ := json.MarshalIndent(obj, "", "  ") //nolint:errchkjson // a Status always encodes
	return data
}

// Refuse answers with the status of an error, in the media type that r asks for, or in
// indented JSON if that is none.
func Refuse(w http.ResponseWriter, r *http.Request, err *apierrors.StatusError) {
	status := err.ErrStatus
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	how, ok := OfErrors(r)
	body, failed := Encode(how.Media, &status)
	if !ok || failed != nil || how.Media == JSON && how.Pretty {
		how.Media, body = JSON, Indented(&status)
	}
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	w.Header().Set("Content-Type", how.Media)
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(body) // the client has gone: nobody to tell
}
