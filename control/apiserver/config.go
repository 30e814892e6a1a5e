// Package apiserver assembles the API server: it joins the stations of a
// request's journey (authn, authz, admit, resource) to a listener, and makes the
// objects that every cluster starts with. It serves; it does not know who asks.
package apiserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sampan-dev/sampan/control/apiserver/admit"
	"github.com/sampan-dev/sampan/control/apiserver/atrest"
	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/control/store"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/kinds"
)

// Defaults of a Config.
const (
	// DefaultServiceRange holds the services' addresses: upstream installers'.
	DefaultServiceRange = "10.96.0.0/12"
	// DefaultDomain is the cluster's DNS name.
	DefaultDomain = "cluster.local"
)

// Config is all that a Server needs. Fields without a default must be set.
type Config struct {
	// Store holds the objects; it stays open when the server ends.
	Store store.Store
	// Kinds is the table of what is served.
	Kinds []*kinds.Kind
	// Authority issues the server's own certificates and those of its clients.
	Authority *pki.Authority
	// LongestToken bounds the lives of the server's own tokens; 0 is no bound.
	LongestToken time.Duration
	// Authentication says whose tokens count beside the server's own.
	Authentication authn.Settings
	// AuthorizationPath is the file of an AuthorizationConfiguration
	// (--authorization-config); "" asks the node authorizer and the roles.
	AuthorizationPath string
	// FrontProxy certifies this server to the servers of aggregated APIs; nil
	// makes an authority that ends with the process.
	FrontProxy *pki.Authority
	// Trust says whose certificates count beside the Authority's, and what is shown to
	// those who ask for other names; nil adds nothing.
	Trust *Trust
	// TokenKey signs service-account tokens.
	TokenKey *pki.TokenKey
	// Components are checks of parts of the control plane by their names in
	// ComponentStatuses, in the place of the built-in ones: whether somebody renews
	// the lease of "scheduler" and of "controller-manager", and the store for
	// "etcd-0".
	Components map[string]func(ctx context.Context) error
	// NodeMetrics gets a node's /metrics/resource, for metrics.k8s.io; nil asks
	// the node itself.
	NodeMetrics func(ctx context.Context, node string) (io.ReadCloser, error)
	// Listener accepts the TCP connections; the server closes it. Nil serves
	// only in-process callers.
	Listener net.Listener
	// Advertise is where pods and nodes reach this server: the address behind
	// the service "kubernetes". Its port is the listener's when zero.
	Advertise netip.AddrPort
	// Names are further host names and addresses for the server's certificate.
	Names []string
	// ServiceRanges hold the services' addresses; nil means DefaultServiceRange.
	ServiceRanges []netip.Prefix
	// Domain is the cluster's DNS name; "" means DefaultDomain.
	Domain string
	// AuditPath is the file of the audit log; "" keeps none.
	AuditPath string
	// AuditPolicy and AuditWebhook are the files of an audit policy and of a
	// kubeconfig of who else gets the events; "" means level Metadata, and nobody.
	AuditPolicy, AuditWebhook string
	// Flags are those that the process was started with, by name, for people to look
	// up; nothing secret.
	Flags map[string]string
	// Extra serves further paths, authenticated, and authorised as
	// non-resource URLs. A path ending in "/" serves all below it.
	Extra map[string]http.Handler
	// Transformers seal and open stored bytes, by the kind's Storage.
	Transformers map[string]resource.Transformer
	// Ring are the cluster's own keys, which seal Secrets; nil has none.
	Ring *atrest.Ring
	// Encryption says what else is sealed, and how; nil seals nothing else.
	Encryption *atrest.Keeper
	// PodSecurity are the Pod Security Standards of namespaces that name none, and
	// who is exempt; the zero value is upstream's: everything is allowed.
	PodSecurity admit.PodSecurity
	// QuotaLimits are what may only be used under a ResourceQuota.
	QuotaLimits []admit.QuotaLimit
	// Admission switches admission plugins on and off.
	Admission admit.Switches
	// AdmissionPath is the file of an AdmissionConfiguration
	// (--admission-control-config-file); what it says of PodSecurity and of
	// ResourceQuota takes the place of the fields above. "" means none.
	AdmissionPath string
	// Collectors are further metrics for /metrics: those of other parts of this
	// process.
	Collectors []prometheus.Collector
	// Timeline gets the first marks of each pod; it may be nil.
	Timeline *timeline.Recorder
	// Verdicts of who owns what may be shared by servers of the same Kinds in one
	// process, as those of a simulation; nil makes some of its own.
	Verdicts *resource.Verdicts
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Log gets what no client is told; nil discards it.
	Log *slog.Logger
}

// complete fills the defaults and refuses what is missing.
func (c *Config) complete() error {
	if c.Store == nil || c.Authority == nil || c.TokenKey == nil || len(c.Kinds) == 0 {
		return errors.New("api server config: Store, Kinds, Authority and TokenKey must be set")
	}
	if err := c.admission(); err != nil {
		return fmt.Errorf("api server config: %w", err)
	}
	if err := c.PodSecurity.Valid(); err != nil {
		return fmt.Errorf("api server config: %w", err)
	}
	if c.ServiceRanges == nil {
		c.ServiceRanges = []netip.Prefix{netip.MustParsePrefix(DefaultServiceRange)}
	}
	if c.Domain == "" {
		c.Domain = DefaultDomain
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Listener != nil && c.Advertise.Port() == 0 {
		if at, ok := c.Listener.Addr().(*net.TCPAddr); ok {
			c.Advertise = netip.AddrPortFrom(c.Advertise.Addr(), uint16(at.Port)) //nolint:gosec // a port
		}
	}
	return nil
}

// admission reads how admission is configured.
func (c *Config) admission() error {
	if err := c.Admission.Valid(); err != nil {
		return err
	}
	if c.AdmissionPath == "" {
		return nil
	}
	read, err := admit.Load(c.AdmissionPath)
	if err != nil {
		return err
	}
	if read.PodSecurity != nil {
		c.PodSecurity = *read.PodSecurity
	}
	c.QuotaLimits = append(c.QuotaLimits, read.QuotaLimits...)
	return nil
}

// issuer is the name under which tokens are issued.
func (c *Config) issuer() string { return "https://kubernetes.default.svc." + c.Domain }

// serverTLS is the listener's: everybody may say who they are, and authentication
// judges it, so that a bad certificate is a readable 401. The subjects of known are
// told to clients, so that one that has several certificates knows which to show.
func serverTLS(h *pki.Holder, known *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: h.GetCertificate,
		ClientAuth:     tls.RequestClientCert,
		ClientCAs:      known,
		NextProtos:     []string{"h2", "http/1.1"},
	}
}
