package resource

import (
	"context"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// The verbs of a Request, as authorisation and audit spell them.
const (
	verbGet              = "get"
	verbList             = "list"
	verbWatch            = "watch"
	verbCreate           = "create"
	verbUpdate           = "update"
	verbPatch            = "patch"
	verbDelete           = "delete"
	verbDeleteCollection = "deletecollection"
)

// Request is one thing asked of the server, however it arrived. Of the options
// only those of its verb count.
type Request struct {
	Verb   string
	Target target.Target
	User   identity.Identity
	// Agent is the client's User-Agent: the field manager of clients that name none.
	Agent    string
	Received time.Time

	Get    metav1.GetOptions
	List   metav1.ListOptions
	Create metav1.CreateOptions
	Update metav1.UpdateOptions
	Patch  metav1.PatchOptions
	Delete metav1.DeleteOptions

	// Body is what a create or update carries: the request's own copy.
	Body runtime.Object
	// PatchType and PatchData are what a patch carries.
	PatchType types.PatchType
	PatchData []byte
	// Path is what an HTTP request's path has after the subresource
	// ("/v1/x" of ".../services/web/proxy/v1/x").
	Path string

	// wide says that the body has more in it than owners of fields are tracked for.
	wide bool

	// Warn shows the user a warning; nil drops it.
	Warn func(text string)

	wire bool // it came over HTTP
}

type requestKey struct{}

// RequestFrom returns the authorised request that a Connect handler serves.
func RequestFrom(ctx context.Context) (*Request, bool) {
	r, ok := ctx.Value(requestKey{}).(*Request)
	return r, ok
}

func (r *Request) warn(text string) {
	if r.Warn != nil {
		r.Warn(text)
	}
}

func (r *Request) dryRun() bool {
	switch r.Verb {
	case verbCreate:
		return len(r.Create.DryRun) > 0
	case verbUpdate:
		return len(r.Update.DryRun) > 0
	case verbPatch:
		return len(r.Patch.DryRun) > 0
	case verbDelete, verbDeleteCollection:
		return len(r.Delete.DryRun) > 0
	}
	return false
}

// options gives admission the options of the write that really happens: a patch
// is told as an update or a create.
func (r *Request) options(op Operation) runtime.Object {
	dryRun, manager, strict := r.Update.DryRun, r.Update.FieldManager, r.Update.FieldValidation
	switch r.Verb {
	case verbPatch:
		dryRun, manager, strict = r.Patch.DryRun, r.Patch.FieldManager, r.Patch.FieldValidation
	case verbCreate:
		dryRun, manager, strict = r.Create.DryRun, r.Create.FieldManager, r.Create.FieldValidation
	}
	switch op {
	case OpCreate:
		return &metav1.CreateOptions{TypeMeta: optionsMeta("CreateOptions"), DryRun: dryRun, FieldManager: manager, FieldValidation: strict}
	case OpUpdate:
		return &metav1.UpdateOptions{TypeMeta: optionsMeta("UpdateOptions"), DryRun: dryRun, FieldManager: manager, FieldValidation: strict}
	case OpDelete:
		o := r.Delete.DeepCopy()
		o.TypeMeta = optionsMeta("DeleteOptions")
		return o
	}
	return nil
}

// optionsVersion is put together once.
var optionsVersion = metav1.SchemeGroupVersion.String()

func optionsMeta(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: optionsVersion, Kind: kind}
}

// manager is who owns the fields that the request sets: the manager it names, or
// what its User-Agent says before the first "/".
func (r *Request) manager() string {
	named := ""
	switch r.Verb {
	case verbCreate:
		named = r.Create.FieldManager
	case verbUpdate:
		named = r.Update.FieldManager
	case verbPatch:
		named = r.Patch.FieldManager
	}
	if named != "" {
		return named
	}
	return managerOf(r.Agent)
}

func managerOf(agent string) string {
	agent, _, _ = strings.Cut(agent, "/")
	if len(agent) <= validation.FieldManagerMaxLength && !strings.ContainsFunc(agent, func(c rune) bool { return c == utf8.RuneError || !unicode.IsPrint(c) }) {
		return agent
	}
	var b strings.Builder
	for _, c := range agent {
		if !unicode.IsPrint(c) {
			continue
		}
		if b.Len()+len(string(c)) > validation.FieldManagerMaxLength {
			break
		}
		b.WriteRune(c)
	}
	return b.String()
}
