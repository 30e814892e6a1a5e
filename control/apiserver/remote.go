package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/aggregate"
	"github.com/sampan-dev/sampan/control/apiserver/metricsapi"
	"github.com/sampan-dev/sampan/control/apiserver/webhook"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/kinds"
)

// frontProxy is who this server is to the servers that it hands requests on to.
const frontProxy = "front-proxy-client"

// extensionConfig is where extension servers read whom to trust.
const extensionConfig = "extension-apiserver-authentication"

// certifyFront makes the certificate of the front proxy. Its authority is none of
// the clients': whoever it certifies may say that they are anybody.
func (s *Server) certifyFront() (err error) {
	if s.cfg.FrontProxy == nil {
		if s.cfg.FrontProxy, err = pki.Temporary(s.cfg.Now); err != nil {
			return fmt.Errorf("api server: %w", err)
		}
	}
	s.front, err = s.cfg.FrontProxy.Hold(pki.Leaf{CommonName: frontProxy, Client: true})
	if err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	return nil
}

// newAggregator needs own and webhooks.
func (s *Server) newAggregator() *aggregate.Aggregator {
	return aggregate.New(aggregate.Config{
		Objects: s.own,
		Dial: func(ctx context.Context, namespace, name string, port int32) (net.Conn, error) {
			return s.webhooks.Dial(ctx, webhook.Service{Namespace: namespace, Name: name, Port: port})
		},
		Certificate: s.front.GetClientCertificate,
		Inside:      map[schema.GroupVersion]http.Handler{metricsapi.GroupVersion: s.usage},
		Kinds:       s.resources.Kinds, BuiltIn: s.cfg.Kinds, Now: s.cfg.Now, Log: s.cfg.Log,
	})
}

// kindsChanged tells who registers group versions that others are served now.
func (s *Server) kindsChanged() {
	if s.remotes != nil {
		s.remotes.KindsChanged()
	}
}

// aggregateOthers runs the aggregator once the first objects are there.
func (s *Server) aggregateOthers(ctx context.Context) error {
	select {
	case <-s.ready:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return s.remotes.Run(ctx)
}

// serveRemote answers for what is in no table: the generic handler has authorised
// it. What no other server answers for does not exist.
func (s *Server) serveRemote(w http.ResponseWriter, r *http.Request) {
	s.remotes.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.builtIn(r.URL.Path) {
			http.NotFound(w, r) // as of any path that means nothing
			return
		}
		nowhere(w, r)
	})).ServeHTTP(w, r)
}

// nowhere says that there is nothing at a path, where others nearby mean something.
func nowhere(w http.ResponseWriter, r *http.Request) {
	refuse(w, r, &apierrors.StatusError{ErrStatus: metav1.Status{Status: metav1.StatusFailure, Code: http.StatusNotFound,
		Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource", Details: &metav1.StatusDetails{}}})
}

// builtIn says that a path is of a group that the server itself has.
func (s *Server) builtIn(path string) bool {
	parts := strings.SplitN(strings.TrimPrefix(path, "/"), "/", 3)
	if parts[0] == "api" {
		return true
	}
	return len(parts) > 1 && slices.ContainsFunc(s.resources.Kinds(), func(k *kinds.Kind) bool { return k.Custom == nil && k.GVK.Group == parts[1] })
}

// trust is the config map by which extension servers know this one and its clients.
func (s *Server) trust() wanted {
	list := func(names ...string) string {
		raw, _ := json.Marshal(append([]string{}, names...)) //nolint:errchkjson // strings always encode
		return string(raw)
	}
	data := map[string]string{
		"client-ca-file":                     string(s.cfg.Trust.clients(s.cfg.Authority.PEM())),
		"requestheader-client-ca-file":       string(s.cfg.Trust.proxies(s.cfg.FrontProxy.PEM())),
		"requestheader-allowed-names":        list(s.frontProxies().Names...),
		"requestheader-username-headers":     list(aggregate.HeaderUser),
		"requestheader-uid-headers":          list(aggregate.HeaderUID),
		"requestheader-group-headers":        list(aggregate.HeaderGroup),
		"requestheader-extra-headers-prefix": list(aggregate.HeaderExtraPrefix),
	}
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceSystem, Name: extensionConfig}, Data: data}
	return want(corev1.SchemeGroupVersion.WithResource("configmaps"), m, func(have kinds.Object) (changed bool) {
		h := have.(*corev1.ConfigMap)
		for key, value := range data {
			if h.Data[key] != value {
				if h.Data == nil {
					h.Data = map[string]string{}
				}
				h.Data[key], changed = value, true
			}
		}
		return changed
	})
}
