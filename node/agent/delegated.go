package agent

import (
	"context"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/node/agent/delegate"
)

// delegate has the API server judge those who use the kubelet API, unless the
// Config says who does.
func (a *Agent) delegate() {
	k := a.cfg.Kubelet
	d := delegate.New(delegate.Config{
		Transport: a.cfg.Transport, NodeName: a.cfg.NodeName, ClientCAs: a.cfg.callers.now,
		Tokens: *k.Authentication.Webhook.Enabled, Anonymous: *k.Authentication.Anonymous.Enabled,
		TokenFor: k.Authentication.Webhook.CacheTTL.Duration, AllowedFor: k.Authorization.Webhook.CacheAuthorizedTTL.Duration,
		DeniedFor: k.Authorization.Webhook.CacheUnauthorizedTTL.Duration,
	})
	if a.cfg.Authn == nil {
		a.cfg.Authn = d.Authenticate
	}
	if a.cfg.Authz != nil {
		return
	}
	a.cfg.Authz = d.Allowed
	if k.Authorization.Mode == kubeletv1beta1.KubeletAuthorizationModeAlwaysAllow {
		a.cfg.Authz = func(context.Context, identity.Identity, string, string) bool { return true }
	}
}
