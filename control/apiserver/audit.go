package apiserver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
)

// The audit log's bounds: together about 300 MiB of disk.
const (
	maxAuditFile  = 64 << 20
	maxAuditFiles = 5
)

// origin is what the listener knows of a request that audit writes down.
type origin struct {
	auditID      string
	address      string
	impersonator *identity.Identity
}

type originKey struct{}

func originOf(ctx context.Context) (*origin, bool) {
	o, ok := ctx.Value(originKey{}).(*origin)
	return o, ok
}

// auditLine is one event of audit.k8s.io/v1 at level Metadata: never a body.
type auditLine struct {
	Kind         string                     `json:"kind"`
	APIVersion   string                     `json:"apiVersion"`
	Level        string                     `json:"level"`
	AuditID      string                     `json:"auditID,omitempty"`
	Stage        string                     `json:"stage"`
	RequestURI   string                     `json:"requestURI,omitempty"`
	Verb         string                     `json:"verb"`
	User         authenticationv1.UserInfo  `json:"user"`
	Impersonated *authenticationv1.UserInfo `json:"impersonatedUser,omitempty"`
	SourceIPs    []string                   `json:"sourceIPs,omitempty"`
	UserAgent    string                     `json:"userAgent,omitempty"`
	Object       *auditObject               `json:"objectRef,omitempty"`
	Response     *metav1.Status             `json:"responseStatus,omitempty"`
	Received     metav1.MicroTime           `json:"requestReceivedTimestamp"`
	Done         metav1.MicroTime           `json:"stageTimestamp"`
}

type auditObject struct {
	Resource    string `json:"resource,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	APIGroup    string `json:"apiGroup,omitempty"`
	APIVersion  string `json:"apiVersion,omitempty"`
	Subresource string `json:"subresource,omitempty"`
}

// auditLog appends lines to a file and keeps a few old ones. The zero path
// keeps nothing.
type auditLog struct {
	path string
	max  int64 // bytes of one file
	log  *slog.Logger

	mu   sync.Mutex
	file *os.File
	size int64
}

func openAudit(path string, log *slog.Logger) (*auditLog, error) {
	a := &auditLog{path: path, max: maxAuditFile, log: log}
	if path == "" {
		return a, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return a, a.open()
}

// open starts appending to the present file. The caller holds mu, or is alone.
func (a *auditLog) open() error {
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open audit log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("open audit log: %w", err), f.Close())
	}
	a.file, a.size = f, info.Size()
	return nil
}

func (a *auditLog) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return nil
	}
	err := a.file.Close()
	a.file = nil
	return err
}

func (a *auditLog) write(line *auditLine) {
	raw, err := json.Marshal(line)
	if err != nil {
		a.log.Error("encode audit line", "error", err)
		return
	}
	raw = append(raw, '\n')
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == nil {
		return
	}
	if a.size+int64(len(raw)) > a.max {
		a.rotate()
	}
	if a.file == nil {
		return
	}
	n, err := a.file.Write(raw)
	a.size += int64(n)
	if err != nil {
		a.log.Error("write audit line", "error", err)
	}
}

// rotate shifts audit.log to audit.log.1 and so on; the oldest goes. The caller
// holds mu.
func (a *auditLog) rotate() {
	err := a.file.Close()
	a.file = nil
	for i := maxAuditFiles - 1; i > 0; i-- {
		from := fmt.Sprintf("%s.%d", a.path, i-1)
		if i == 1 {
			from = a.path
		}
		if e := os.Rename(from, fmt.Sprintf("%s.%d", a.path, i)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	if err = errors.Join(err, a.open()); err != nil {
		a.log.Error("rotate audit log", "error", err)
	}
}

// finished is told of every resource request, also those of this process; the
// server's own are nobody's business.
func (s *Server) finished(ctx context.Context, e resource.AuditEvent) {
	if isOwn(ctx, e.Request.User) {
		return
	}
	s.metrics.request(e.Request.Verb, e.Request.Target.Resource.Resource, e.Code)
	if s.audit.path == "" || dull(ctx, e) {
		return
	}
	r, t := e.Request, e.Request.Target
	line := newLine(ctx, r.User, e.Start, e.End)
	line.Verb, line.UserAgent = r.Verb, r.Agent
	line.Object = &auditObject{Resource: t.Resource.Resource, APIGroup: t.Resource.Group, APIVersion: t.Resource.Version,
		Namespace: t.Namespace, Name: t.Name, Subresource: t.Subresource}
	line.Response = &metav1.Status{Code: int32(e.Code)} //nolint:gosec // an HTTP status
	if e.Err != nil {
		line.Response.Status, line.Response.Message = metav1.StatusFailure, e.Err.Error()
	}
	s.audit.write(line)
}

// ownKey marks what the server reads for itself while it serves somebody.
type ownKey struct{}

// isOwn: a name proves nothing here, for it may be borrowed over the wire.
func isOwn(ctx context.Context, who identity.Identity) bool {
	if ctx.Value(ownKey{}) != nil {
		return true
	}
	_, wire := originOf(ctx)
	return !wire && who.Name == self.Name
}

// dull requests would bury the others: what components of the cluster read,
// heartbeats and events.
func dull(ctx context.Context, e resource.AuditEvent) bool {
	r := e.Request
	if o, ok := originOf(ctx); ok && o.impersonator != nil {
		return false // whoever borrows a name is watched
	}
	if r.Target.Resource.Resource == "events" {
		return true
	}
	if r.Target.Resource.Resource == "leases" && e.Err == nil {
		return true
	}
	read := r.Verb == "get" || r.Verb == "list" || r.Verb == "watch"
	return read && e.Err == nil && strings.HasPrefix(r.User.Name, "system:") && !strings.HasPrefix(r.User.Name, identity.ServiceAccountPrefix)
}

// visit writes down a request that is no resource; health checks are not.
func (a *auditLog) visit(r *http.Request, who identity.Identity, code int, begin, end time.Time) {
	if a.path == "" || who.Name == identity.Anonymous {
		return
	}
	line := newLine(r.Context(), who, begin, end)
	line.Verb, line.UserAgent, line.RequestURI = strings.ToLower(r.Method), r.UserAgent(), r.URL.RequestURI()
	line.Response = &metav1.Status{Code: int32(code)} //nolint:gosec // an HTTP status
	a.write(line)
}

func newLine(ctx context.Context, who identity.Identity, begin, end time.Time) *auditLine {
	line := &auditLine{Kind: "Event", APIVersion: "audit.k8s.io/v1", Level: "Metadata", Stage: "ResponseComplete",
		User: userOf(who), Received: metav1.NewMicroTime(begin), Done: metav1.NewMicroTime(end)}
	if o, ok := originOf(ctx); ok {
		line.AuditID, line.SourceIPs = o.auditID, []string{o.address}
		if o.impersonator != nil {
			as := line.User
			line.User, line.Impersonated = userOf(*o.impersonator), &as
		}
	}
	return line
}

func userOf(id identity.Identity) authenticationv1.UserInfo {
	u := authenticationv1.UserInfo{Username: id.Name, UID: id.UID, Groups: id.Groups}
	for k, v := range id.Extra {
		if u.Extra == nil {
			u.Extra = map[string]authenticationv1.ExtraValue{}
		}
		u.Extra[k] = v
	}
	return u
}
