package apiserver

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/control/apiserver/authz/impersonate"
)

// authenticator joins all ways of saying who one is.
func (s *Server) authenticator(reader *ownReader) (err error) {
	settings := s.cfg.Authentication
	settings.Own = []string{s.cfg.issuer(), authn.LegacyIssuer}
	if s.sources, err = authn.NewSources(settings, s.cfg.Now, s.cfg.Log); err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	s.authn = authn.New(authn.Config{
		ClientCAs: s.clientCAs(), Now: s.cfg.Now, FrontProxy: s.frontProxies(),
		Tokens: s.tokens, Objects: reader, Others: []authn.TokenSource{s.sources}, Anonymous: s.sources.Anonymous,
	})
	s.handshake.Store(serverTLS(s.serving, s.authorities()))
	if s.cfg.Trust != nil {
		s.serving.ShowByName(s.cfg.Trust.named)
	}
	return nil
}

// authorizer joins all who say what one may do.
func (s *Server) authorizer(reader *ownReader) (err error) {
	nodes := authz.NewNodes(reader, s.defaults)
	s.authz = authz.New(s.policy, nodes)
	s.borrow = impersonate.New(s.authz.Decide)
	if s.cfg.AuthorizationPath == "" {
		return nil
	}
	if s.mayConfig, err = s.authz.Configure(s.cfg.AuthorizationPath, nodes, s.cfg.Now, s.cfg.Log); err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	s.metrics.registry.MustRegister(s.mayConfig.Reloads)
	return nil
}

// followSettings takes over changes of configuration files until ctx ends.
func (s *Server) followSettings(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.sources.Run(ctx) })
	if s.mayConfig != nil {
		g.Go(func() error { return s.mayConfig.Run(ctx) })
	}
	if s.cfg.Trust != nil {
		g.Go(func() error { return s.followTrust(ctx) })
	}
	return g.Wait()
}
