// Package exchange has the nodes of a cluster give each other images: it answers a
// store (image.Neighbours) which images are the cluster's own, and which nodes have
// the content of one.
//
// Names are looked up at one place, the server's; nodes are believed nothing but
// bytes of which the digest is known. Who may have an image of a registry is still
// that registry's to say: it is asked what the name leads to, with the pod's own
// credentials, before a node is asked for the content.
package exchange

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/image"
	"github.com/sampan-dev/sampan/node/image/remote"
	"github.com/sampan-dev/sampan/node/registry"
)

// OriginPath is where an API server says what a name leads to (registry.Origin).
// It wants the right to "get" the path.
const OriginPath = "/sampan/v1/image"

// Limits of asking others: a registry is there too.
const (
	dialTimeout   = 3 * time.Second
	answerTimeout = 10 * time.Second
	askTimeout    = 15 * time.Second
	idleTimeout   = 30 * time.Second
	perNode       = 4
	// knownFor is how long a list of nodes is good: pulls come in crowds.
	knownFor = 10 * time.Second
	// maxHolders bounds the nodes that are tried for one image, beside the origin.
	maxHolders = 3
)

// Config says whose exchange it is.
type Config struct {
	// Transport reads nodes; NodeName is this node's, which is not asked.
	Transport client.Transport
	NodeName  string
	// TLS shows this node's certificate and knows the cluster's authority.
	TLS *tls.Config
	// Origin says what names mean.
	Origin Origin
	// Log gets what nobody else is told; nil means slog.Default.
	Log *slog.Logger
}

// Origin says what a name leads to in the cluster: nothing when it is no image of
// its own.
type Origin func(ctx context.Context, ref string) (image.Named, error)

// Exchange implements image.Neighbours. It may be used concurrently.
type Exchange struct {
	cfg Config
	way http.RoundTripper

	mu    sync.Mutex
	nodes []holder
	since time.Time
}

// holder is another node that is well, with what it says that it has.
type holder struct {
	name, url string
	// digests are the image digests among the names in its status.
	digests []string
}

// New makes an exchange; it asks nobody until it is asked.
func New(cfg Config) *Exchange {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Exchange{cfg: cfg, way: bounded(cfg.TLS)}
}

// bounded is a way to other machines of the cluster that does not wait for long.
func bounded(cfg *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialTimeout, KeepAlive: idleTimeout}).DialContext,
		TLSClientConfig: cfg, TLSHandshakeTimeout: dialTimeout, ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout: idleTimeout, MaxIdleConnsPerHost: perNode, MaxResponseHeaderBytes: 64 << 10,
		DisableCompression: true,
	}
}

// Named implements image.Neighbours.
func (e *Exchange) Named(ctx context.Context, ref string) (image.Named, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return e.cfg.Origin(ctx, ref)
}

// Holders implements image.Neighbours: ready nodes that say that they have the
// image, a few of them in no order, and last the one that is said to have it.
func (e *Exchange) Holders(ctx context.Context, w image.Wanted) []remote.Peer {
	nodes, err := e.list(ctx)
	if err != nil {
		e.cfg.Log.Warn("other nodes can't be asked for an image", "image", w.Ref, "error", err)
		return nil
	}
	var holders, origin []remote.Peer
	for _, i := range rand.Perm(len(nodes)) {
		n := nodes[i]
		peer := remote.Peer{URL: n.url, Transport: e.way}
		if n.name == w.Node {
			origin = []remote.Peer{peer}
		} else if len(holders) < maxHolders && slices.Contains(n.digests, w.Top.String()) {
			holders = append(holders, peer)
		}
	}
	return append(holders, origin...)
}

// list reads the other nodes, or gives those of a moment ago.
func (e *Exchange) list(ctx context.Context) ([]holder, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if time.Since(e.since) < knownFor {
		return e.nodes, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	all, _, err := client.Nodes.List(ctx, e.cfg.Transport, "", metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	e.nodes = nil
	for _, n := range all {
		if h, ok := holderOf(n); ok && n.Name != e.cfg.NodeName {
			e.nodes = append(e.nodes, h)
		}
	}
	e.since = time.Now()
	return e.nodes, nil
}

// holderOf reads of a node what matters here; false when it can't be asked.
func holderOf(n *corev1.Node) (holder, bool) {
	h := holder{name: n.Name}
	well := false
	for _, c := range n.Status.Conditions {
		well = well || c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	}
	port := n.Status.DaemonEndpoints.KubeletEndpoint.Port
	for _, a := range n.Status.Addresses {
		if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && h.url == "" {
			h.url = "https://" + netip.AddrPortFrom(ip, uint16(port)).String()
		}
	}
	for _, img := range n.Status.Images {
		for _, name := range img.Names {
			if _, d, ok := strings.Cut(name, "@"); ok && !slices.Contains(h.digests, d) {
				h.digests = append(h.digests, d)
			}
		}
	}
	return h, well && h.url != "" && port > 0
}

// Ask is the Origin of a node whose API server is at HOST:PORT.
func Ask(server string, config *tls.Config) Origin {
	asker := &http.Client{Transport: bounded(config), CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return func(ctx context.Context, ref string) (image.Named, error) {
		where := "https://" + server + OriginPath + "?" + url.Values{"ref": {ref}}.Encode()
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
		if err != nil {
			return image.Named{}, fmt.Errorf("ask for %q: %w", ref, err)
		}
		answer, err := asker.Do(r)
		if err != nil {
			return image.Named{}, fmt.Errorf("ask for %q: %w", ref, err)
		}
		defer answer.Body.Close()
		raw, err := io.ReadAll(io.LimitReader(answer.Body, image.MaxManifest+1))
		switch {
		case err != nil:
			return image.Named{}, fmt.Errorf("ask for %q: %w", ref, err)
		case answer.StatusCode == http.StatusNotFound:
			return image.Named{}, nil
		case answer.StatusCode != http.StatusOK:
			return image.Named{}, fmt.Errorf("ask for %q: %s", ref, strconv.Quote(answer.Status))
		case len(raw) > image.MaxManifest:
			return image.Named{}, fmt.Errorf("ask for %q: %w", ref, errLong)
		}
		return image.Named{Raw: raw, Node: answer.Header.Get(registry.NodeHeader)}, nil
	}
}

var errLong = errors.New("the answer is longer than a manifest may be")
