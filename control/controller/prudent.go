package controller

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/internal/target"
)

const (
	// staleFor is for how long an update is refused without asking the server. By then
	// the mirror has long shown what is newer; if it has not, or the server has been
	// set back, the server is asked.
	staleFor = 5 * time.Second
	// maxGeneration objects are remembered, and as many of those before them.
	maxGeneration = 2048
)

// Prudent returns a transport that does not ask t what it knows the answer to: an
// update of an object as it was before this transport's own last write to it, or as it
// was when the server refused it, is a conflict. A controller whose mirror is behind is
// woken by everything that happens around the object, and would ask each time.
func Prudent(t client.Transport) client.Transport { return &prudent{Transport: t} }

type prudent struct {
	client.Transport

	mu          sync.Mutex
	young, aged map[target.Target]stale
}

// stale is what is known of an object's older states: those before a revision, and one.
type stale struct {
	before int64
	one    string
	at     time.Time
}

// Update implements client.Transport.
func (p *prudent) Update(ctx context.Context, at target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	asked := revisionOf(obj)
	if p.known(at, asked) {
		return nil, apierrors.NewConflict(at.Resource.GroupResource(), at.Name,
			errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	}
	made, err := p.Transport.Update(ctx, at, obj, opts)
	switch {
	case err == nil:
		p.wrote(at, made)
	case apierrors.IsConflict(err) && asked != "":
		p.note(at, stale{one: asked})
	}
	return made, err
}

// Patch implements client.Transport.
func (p *prudent) Patch(ctx context.Context, at target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	made, err := p.Transport.Patch(ctx, at, pt, data, opts)
	if err == nil {
		p.wrote(at, made)
	}
	return made, err
}

// Raw does what client.Raw asks for.
func (p *prudent) Raw(ctx context.Context, path string) ([]byte, error) {
	return client.Raw(ctx, p.Transport, path)
}

// RawDelete does what client.RawDelete asks for.
func (p *prudent) RawDelete(ctx context.Context, path string) error {
	return client.RawDelete(ctx, p.Transport, path)
}

// known says whether an update of the object as it was at a revision is refused anyway.
func (p *prudent) known(at target.Target, revision string) bool {
	if revision == "" {
		return false // whatever it is
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of(plain(at))
	n, err := strconv.ParseInt(revision, 10, 64)
	return time.Since(s.at) < staleFor && (s.one == revision || err == nil && n < s.before)
}

func (p *prudent) wrote(at target.Target, made runtime.Object) {
	if n, err := strconv.ParseInt(revisionOf(made), 10, 64); err == nil {
		p.note(at, stale{before: n})
	}
}

// note remembers s beside what is known already.
func (p *prudent) note(at target.Target, s stale) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at = plain(at)
	was := p.of(at)
	if s.one == "" {
		s.one = was.one
	}
	s.before, s.at = max(s.before, was.before), time.Now()
	if len(p.young) >= maxGeneration {
		p.young, p.aged = nil, p.young
	}
	if p.young == nil {
		p.young = map[target.Target]stale{}
	}
	p.young[at] = s
}

func (p *prudent) of(at target.Target) stale {
	if s, ok := p.young[at]; ok {
		return s
	}
	return p.aged[at]
}

// plain names the object, whatever part of it and in whatever version.
func plain(at target.Target) target.Target {
	at.Subresource, at.Resource.Version = "", ""
	return at
}

func revisionOf(obj runtime.Object) string {
	if meta, ok := obj.(metav1.Object); ok && meta != nil {
		return meta.GetResourceVersion()
	}
	return ""
}
