package aggregate

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"strings"

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
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			r.again()
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	}
	proxy.ServeHTTP(w, req)
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
