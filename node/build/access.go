package build

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
)

// The secrets with which an ADD may reach what not everybody may, by BuildKit's names; the
// host's comes before the one of all hosts.
const (
	secretHeader = "HTTP_AUTH_HEADER"
	secretToken  = "HTTP_AUTH_TOKEN"
	secretGit    = "GIT_AUTH_TOKEN"
	secretGitRaw = "GIT_AUTH_HEADER"
)

// secretFor is a secret's value for a host; "" when there is none.
func (b *builder) secretFor(name, separator, host string) (string, error) {
	for _, id := range []string{name + separator + host, name} {
		s, ok := b.opts.Secrets[id]
		if !ok {
			continue
		}
		value, err := s.read(id)
		return strings.TrimSpace(string(value)), err
	}
	return "", nil
}

// httpAccess is the Authorization header with which an ADD asks for a URL.
func (b *builder) httpAccess(from string) (string, error) {
	u, err := url.Parse(from)
	if err != nil {
		return "", nil //nolint:nilerr // whoever asks for it will say so
	}
	header, err := b.secretFor(secretHeader, "_", u.Host)
	if err != nil || header != "" {
		return header, err
	}
	token, err := b.secretFor(secretToken, "_", u.Host)
	if err != nil || token == "" {
		return "", err
	}
	return "Bearer " + token, nil
}

// gitAccess is the environment in which git reaches a repository: with a token of the
// person's for its host alone, or the person's agent.
func (b *builder) gitAccess(g GitContext) ([]string, error) {
	var env []string
	if socket, ok := b.opts.Agents["default"]; ok {
		env = append(env, "SSH_AUTH_SOCK="+socket)
	}
	u, err := url.Parse(g.Repository)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return env, nil //nolint:nilerr // such have no headers
	}
	header, err := b.secretFor(secretGitRaw, ".", u.Host)
	if err == nil && header == "" {
		var token string
		if token, err = b.secretFor(secretGit, ".", u.Host); token != "" {
			header = "basic " + base64.StdEncoding.EncodeToString([]byte("x-access-token:"+token))
		}
	}
	if err != nil || header == "" {
		return env, err
	}
	// In the environment: arguments are for all to read.
	return append(env, "GIT_CONFIG_COUNT=1", fmt.Sprintf("GIT_CONFIG_KEY_0=http.%s://%s/.extraheader", u.Scheme, u.Host),
		"GIT_CONFIG_VALUE_0=Authorization: "+header), nil
}
