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
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
	// Media is one of the media types above.
	Media string
	// Params are the parameters, such as "as".
	Params map[string]string
}

// Choices are what an Accept header allows of what is spoken, the best first. None
// means that nothing is acceptable; no header, that anything is.
func Choices(h http.Header) []Choice {
	header := cmp.Or(strings.Join(h.Values("Accept"), ","), "*/*")
	type weighed struct {
		Choice
		q float64
	}
	var found []weighed
	for i, text := range strings.Split(header, ",") {
		if i == maxChoices {
			break
		}
		name, params, err := mime.ParseMediaType(strings.TrimSpace(text))
		if err != nil {
			continue
		}
		if name == "*/*" || name == "application/*" {
			name = JSON
		}
		w := weighed{Choice{name, params}, 1}
		if q, err := strconv.ParseFloat(params["q"], 64); err == nil {
			w.q = q
		}
		if slices.Contains(all, name) {
			found = append(found, w)
		}
	}
	slices.SortStableFunc(found, func(a, b weighed) int { return -cmp.Compare(a.q, b.q) })
	choices := make([]Choice, len(found))
	for i := range found {
		choices[i] = found[i].Choice
	}
	return choices
}

// NotAcceptable is upstream's 406 for who accepts nothing that is spoken.
func NotAcceptable() *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable,
		Message: "only the following media types are accepted: " + strings.Join(all, ", ")}}
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

// Refuse answers with the status of an error, in the media type that r asks for, or in
// JSON if that is none. JSON is indented, for people.
func Refuse(w http.ResponseWriter, r *http.Request, err *apierrors.StatusError) {
	status := err.ErrStatus
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	media := JSON
	for _, c := range Choices(r.Header) {
		if c.Params["as"] == "" {
			media = c.Media
			break
		}
	}
	var body []byte
	var failed error
	if media != JSON {
		body, failed = Encode(media, &status)
	}
	if media == JSON || failed != nil {
		media = JSON
		body, _ = json.MarshalIndent(status, "", "  ") //nolint:errchkjson // a Status always encodes
		body = append(body, '\n')
	}
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", media)
	w.WriteHeader(int(status.Code))
	_, _ = w.Write(body) // the client has gone: nobody to tell
}
