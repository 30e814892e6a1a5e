package resource

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	listvalidation "k8s.io/apimachinery/pkg/apis/meta/internalversion/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/kinds"
)

// waitForRevision is how long a read waits for a revision that this server has
// not seen yet, before it says 504.
const waitForRevision = 3 * time.Second

// page is one answer to a list: entries of the cache, shared and read-only.
type page struct {
	items     []item
	revision  int64
	cont      string
	remaining *int64
}

// item is one object of a page or a watch.
type item struct{ entry *cache.Entry }

// object is the item in the collection's kind: shared and read-only; nil when
// its stored bytes cannot be decoded.
func (i item) object(c *collection) kinds.Object {
	obj, ok := i.entry.Object().(kinds.Object)
	if !ok {
		return nil
	}
	return c.show(obj)
}

// list answers with the objects that the selectors choose, at one revision.
func (c *call) list(ctx context.Context) (*answer, error) {
	opts := &c.req.List
	if err := checkListOptions(opts, false); err != nil {
		return nil, err
	}
	sel, err := c.selector()
	if err != nil {
		return nil, err
	}
	if c.storage.computed != nil {
		p, err := c.computedPage(ctx, sel)
		if err != nil {
			return nil, c.failed(err)
		}
		return &answer{code: http.StatusOK, page: p}, nil
	}
	at, err := c.position(opts)
	if err != nil {
		return nil, err
	}
	snap, err := c.snapshot(ctx, at)
	if err != nil {
		return nil, c.failed(err)
	}
	limit := opts.Limit
	if opts.ResourceVersion == "0" {
		limit = 0 // as upstream's cache: whoever takes any state gets all of it at once
	}
	if err := c.together(ctx, snap, sel, at.from, limit); err != nil {
		return nil, c.failed(err)
	}
	p, err := c.collect(snap, sel, at.from, limit)
	if err != nil {
		return nil, err
	}
	return &answer{code: http.StatusOK, page: p}, nil
}

func checkListOptions(o *metav1.ListOptions, watch bool) error {
	checked := internalversion.ListOptions{
		Watch:                watch,
		ResourceVersion:      o.ResourceVersion,
		ResourceVersionMatch: o.ResourceVersionMatch,
		Continue:             o.Continue,
		SendInitialEvents:    o.SendInitialEvents,
	}
	internalversion.SetListOptionsDefaults(&checked, true)
	errs := listvalidation.ValidateListOptions(&checked, true)
	if len(errs) > 0 {
		return badOptions("ListOptions", errs)
	}
	return nil
}

// position is where in history and where in the keys a list begins.
type position struct {
	revision int64
	exact    bool // just that revision, not a later one
	fresh    bool // the latest
	token    bool // from a continue token
	from     string
}

func (c *call) position(o *metav1.ListOptions) (position, error) {
	if o.Continue != "" {
		return readToken(o)
	}
	revision, err := parseRevision(o.ResourceVersion)
	if err != nil {
		return position{}, apierrors.NewBadRequest(fmt.Sprintf("invalid resource version: %v", err))
	}
	at := position{revision: revision, fresh: o.ResourceVersion == ""}
	switch {
	case o.ResourceVersionMatch == metav1.ResourceVersionMatchExact:
		at.exact = true
	case o.ResourceVersionMatch == "" && (o.Limit > 0 || c.req.Verb == verbDeleteCollection) && revision > 0:
		at.exact = true // the older API, from before resourceVersionMatch; what is deleted is listed in pages
	}
	return at, nil
}

func parseRevision(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	revision, err := strconv.ParseUint(text, 10, 63)
	if err != nil {
		// Upstream's words; for a get or a watch its code is 500, but the fault is the client's.
		return 0, apierrors.NewBadRequest(field.Invalid(field.NewPath("resourceVersion"), text, err.Error()).Error())
	}
	return int64(revision), nil
}

// snapshot finds the state that a list shows.
func (c *call) snapshot(ctx context.Context, at position) (cache.Snapshot, error) {
	mirror, err := c.storage.live(ctx)
	if err != nil {
		return cache.Snapshot{}, err
	}
	if at.fresh {
		return mirror.Fresh(ctx)
	}
	if err := waitFor(ctx, mirror, at.revision); err != nil {
		return cache.Snapshot{}, err
	}
	if !at.exact {
		return mirror.Snapshot(), nil
	}
	snap, err := c.at(ctx, mirror, at.revision)
	if errors.Is(err, store.ErrCompacted) {
		if at.token {
			return cache.Snapshot{}, expiredToken(at)
		}
		return cache.Snapshot{}, apierrors.NewResourceExpired(
			"The resourceVersion for the provided list is too old.")
	}
	return snap, err
}

// at is the state of a revision. What the store has forgotten is forgotten, though
// a cache in which nothing has changed since could still tell: how long a revision
// is remembered must not depend on who writes what.
func (c *call) at(ctx context.Context, mirror *cache.Cache, revision int64) (cache.Snapshot, error) {
	if revision < c.server.compacted.Load() {
		return cache.Snapshot{}, fmt.Errorf("revision %d: %w", revision, store.ErrCompacted)
	}
	return mirror.At(ctx, revision)
}

// waitFor waits until the cache shows revision, but not for ever.
func waitFor(ctx context.Context, mirror *cache.Cache, revision int64) error {
	if mirror.Revision() >= max(revision, 1) {
		return nil // as it mostly is: no timer for that
	}
	ctx, cancel := context.WithTimeout(ctx, waitForRevision)
	defer cancel()
	err := mirror.WaitFor(ctx, revision)
	if errors.Is(err, store.ErrFuture) {
		return tooNew(revision, mirror.Revision())
	}
	return err
}

// collect walks a snapshot from a key on. Beyond the limit it only counts, and
// with selectors not even that, as upstream.
func (c *call) collect(snap cache.Snapshot, sel selector, from string, limit int64) (*page, error) {
	p := &page{revision: snap.Revision()}
	var last string
	var rest int64
	var failed error
	snap.Ascend(c.scope(), from, func(e *cache.Entry) bool {
		if limit > 0 && int64(len(p.items)) >= limit {
			if !sel.all() {
				rest = 1
				return false
			}
			rest++
			return true
		}
		ok, err := c.chosen(sel, e)
		if err != nil {
			failed = err
			return false
		}
		if ok {
			p.items = append(p.items, item{e})
			last = e.Key()
		}
		return true
	})
	if failed != nil {
		return nil, c.unreadable(failed)
	}
	if rest > 0 {
		p.cont = writeToken(p.revision, last+"\x00")
		if sel.all() {
			p.remaining = &rest
		}
	}
	return p, nil
}

// chosen says whether an entry is selected; an error means that it cannot be
// decoded, which must not pass for absence.
func (c *call) chosen(sel selector, e *cache.Entry) (bool, error) {
	if sel.all() {
		return true, nil
	}
	if c.kind.View == nil {
		return sel.matchesSets(e.Labels(), e.Fields()), nil
	}
	stored, err := e.Decode()
	if err != nil {
		return false, err
	}
	return sel.matches(c.show(stored.(kinds.Object))), nil
}

// token is upstream's continue token: where a list goes on, and at which revision.
type token struct {
	Version  string `json:"v"`
	Revision int64  `json:"rv"`
	Start    string `json:"start"`
}

const tokenVersion = "meta.k8s.io/v1"

func writeToken(revision int64, start string) string {
	data, err := json.Marshal(token{Version: tokenVersion, Revision: revision, Start: start})
	if err != nil {
		return "" // a struct of a string and a number always encodes
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func readToken(o *metav1.ListOptions) (position, error) {
	if o.ResourceVersion != "" && o.ResourceVersion != "0" {
		return position{}, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
	}
	invalid := func(why string) (position, error) {
		return position{}, apierrors.NewBadRequest("invalid continue token: continue key is not valid: " + why)
	}
	data, err := base64.RawURLEncoding.DecodeString(o.Continue)
	if err != nil {
		return invalid(err.Error())
	}
	var t token
	if err := json.Unmarshal(data, &t); err != nil {
		return invalid(err.Error())
	}
	switch {
	case t.Version != tokenVersion:
		return invalid("server does not recognize this encoded version " + t.Version)
	case t.Revision == 0:
		return invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")
	case t.Start == "":
		return invalid("encoded start key empty (version meta.k8s.io/v1)")
	case path.Clean("/"+t.Start) != "/"+strings.TrimPrefix(t.Start, "/"):
		return invalid(t.Start)
	}
	at := position{revision: t.Revision, exact: true, token: true, from: strings.TrimPrefix(t.Start, "/")}
	if t.Revision < 0 {
		at.exact, at.fresh, at.revision = false, true, 0
	}
	return at, nil
}

// expiredToken is 410 with a token that goes on from the same key, in the present.
func expiredToken(at position) error {
	err := apierrors.NewResourceExpired("The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.")
	err.ErrStatus.ListMeta.Continue = writeToken(-1, at.from)
	return err
}
