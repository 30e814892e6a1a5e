package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/internal/identity"
)

// The headers that name the caller to the other server.
const (
	HeaderUser        = "X-Remote-User"
	HeaderUID         = "X-Remote-Uid"
	HeaderGroup       = "X-Remote-Group"
	HeaderExtraPrefix = "X-Remote-Extra-"
)

// ServeHTTP hands an authorised request on.
func (r *remote) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if r.inside != nil {
		r.inside.ServeHTTP(w, req)
		return
	}
	if !r.available() {
		http.Error(w, "service unavailable", http.StatusServiceUnavailable)
		return
	}
	if r.broken != nil {
		http.Error(w, r.broken.Error(), http.StatusInternalServerError)
		return
	}
	who, ok := identity.From(req.Context())
	if !ok {
		http.Error(w, "missing user", http.StatusInternalServerError)
		return
	}
	transport := r.transport
	if req.Header.Get("Upgrade") != "" {
		transport = r.plain
	}
	proxy := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // watches must not wait for a full buffer
		ErrorLog:      log.New(quiet{r.owner.cfg.Log}, "", 0),
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = "https", hostOf(r.url(""))
			p.Out.URL.RawQuery = p.In.URL.RawQuery // as it came, ";" and all
			p.Out.Host = p.In.Host
			if id := w.Header().Get("Audit-Id"); id != "" {
				p.Out.Header.Set("Audit-Id", id)
			}
			setCaller(p.Out.Header, who)
		},
		ModifyResponse: func(answer *http.Response) error {
			answer.Header.Del("Audit-Id") // ours counts
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, req *http.Request, err error) {
			r.again()
			if errors.Is(context.Cause(req.Context()), context.DeadlineExceeded) {
				r.late(w)
				return
			}
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	}
	if !lasts(req) {
		ctx, cancel := context.WithTimeout(req.Context(), answerWait)
		defer cancel()
		req = req.WithContext(ctx)
	}
	proxy.ServeHTTP(w, req)
}

// answerWait is how long the other server may take to answer, as upstream's own
// requests may.
const answerWait = time.Minute

// lasts says that a request may go on for as long as both ends like: watches, and
// connections through a subresource.
func lasts(req *http.Request) bool {
	if req.Header.Get("Upgrade") != "" {
		return true
	}
	if wish := req.URL.Query()["watch"]; len(wish) > 0 && wish[0] != "0" && wish[0] != "false" {
		return true
	}
	parts := strings.Split(strings.Trim(req.URL.Path, "/"), "/")
	for i, part := range parts {
		switch part {
		case "proxy", "log", "exec", "attach", "portforward", "watch":
			if i >= 3 { // below group and version
				return true
			}
		}
	}
	return false
}

// late tells that the other server took too long.
func (r *remote) late(w http.ResponseWriter) {
	status := apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0).Status()
	status.Kind, status.APIVersion = "Status", "v1"
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	_ = json.NewEncoder(w).Encode(status) // the client has gone: nobody to tell
}

func hostOf(url string) string { return strings.TrimPrefix(url, "https://") }

// setCaller writes who asks, and nobody else's claims.
func setCaller(h http.Header, who identity.Identity) {
	for name := range h {
		if strings.HasPrefix(name, "X-Remote-") {
			h.Del(name)
		}
	}
	h.Del("Authorization")
	h.Set(HeaderUser, who.Name)
	if who.UID != "" {
		h.Set(HeaderUID, who.UID)
	}
	for _, group := range who.Groups {
		h.Add(HeaderGroup, group)
	}
	for key, values := range who.Extra {
		for _, v := range values {
			h.Add(HeaderExtraPrefix+escape(key), v)
		}
	}
}

// escape makes a header name of any key: what may not stand in one is
// percent-encoded, as is the percent sign.
func escape(key string) string {
	const token = "!#$&'*+-.^_`|~"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(token, c) >= 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", c)
	}
	return b.String()
}

// quiet turns complaints about other servers into debug lines.
type quiet struct{ log *slog.Logger }

func (q quiet) Write(line []byte) (int, error) {
	q.log.Debug("aggregation proxy", "message", string(line))
	return len(line), nil
}

// own asks the remote server in the aggregator's own name, which has every right.
func (r *remote) own(ctx context.Context, path, accept string) (*http.Response, error) {
	if r.broken != nil {
		return nil, r.broken
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url(path), nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	if r.inside != nil {
		return r.ask(req), nil
	}
	setCaller(req.Header, identity.Identity{Name: "system:kube-aggregator", Groups: []string{identity.Masters}})
	return r.transport.RoundTrip(req)
}
