package apiserver

import (
	"context"
	"fmt"

	"github.com/sampan-dev/sampan/control/apiserver/authn"
)

// authenticator joins all ways of saying who one is.
func (s *Server) authenticator(reader *ownReader) (err error) {
	if s.sources, err = authn.NewSources(s.cfg.Authentication, s.cfg.Now, s.cfg.Log); err != nil {
		return fmt.Errorf("api server: %w", err)
	}
	s.authn = authn.New(authn.Config{
		ClientCAs: s.cfg.Authority.Pool(), Now: s.cfg.Now,
		FrontProxy: &authn.FrontProxy{CAs: s.cfg.FrontProxy.Pool(), Names: []string{frontProxy}},
		Tokens:     s.tokens, Objects: reader, Others: []authn.TokenSource{s.sources}, Anonymous: s.sources.Anonymous,
	})
	return nil
}

// followSettings takes over changes of configuration files until ctx ends.
func (s *Server) followSettings(ctx context.Context) error { return s.sources.Run(ctx) }
