package resource

import (
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/speak"
)

// Upstream chooses the code for a request of a built-in kind by its method, its path,
// the type of a patch and what the client accepts, before that code looks at anything.
// What no code is there for is refused in the words of that choice, which knows names
// of media types and no parameters.

// logMedia is what the log of a container is answered in: a log, or an error.
const logMedia = "text/plain, " + acceptedMedia

// unrouted is 415 for a patch of no known type and 406 for who accepts none of what a
// built-in kind is written in; nil for all others.
func (c *call) unrouted(r *http.Request) error {
	if _, untyped := c.kind.New().(runtime.Unstructured); untyped {
		return nil // those choose for themselves, in other words
	}
	if c.req.Verb == verbPatch && !knownPatch(r.Header.Get("Content-Type"), patchTypes(c.kind)) {
		return apierrors.NewGenericServerResponse(http.StatusUnsupportedMediaType, "", schema.GroupResource{}, "", "415: Unsupported Media Type", 0, false)
	}
	produced := acceptedMedia
	if c.req.Verb == verbList || c.req.Verb == verbWatch {
		produced += ", " + acceptedStreams
	}
	if accept := r.Header.Get("Accept"); accept != "" && !speak.Named(accept, produced) {
		return speak.NotProduced(produced)
	}
	return nil
}

// knownPatch says that one of the media types in a header is one of a list.
func knownPatch(contentType, list string) bool {
	return !strings.Contains(contentType, "*") && speak.Named(contentType, list)
}

// barred marks the answer to who may not do what it wants.
func (x *exchange) barred(err error) error {
	if err != nil && apierrors.IsForbidden(err) {
		x.w.Header().Set("X-Content-Type-Options", "nosniff")
	}
	return err
}
