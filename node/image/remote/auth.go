package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// token is an answer to a challenge, good for one host and scope.
type token struct {
	header  string
	expires time.Time
}

// tokenLife is how long a token without a term is used (the distribution
// specification's default).
const tokenLife = 60 * time.Second

// maxTokens bounds those that are remembered.
const maxTokens = 256

func tokenKey(h *host, scope string) string { return h.server.Host + " " + h.registry + " " + scope }

// authorization is the header that worked last, if it still does.
func (c *Client) authorization(h *host, scope string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.tokens[tokenKey(h, scope)]
	if !ok || !known.expires.IsZero() && time.Now().After(known.expires) {
		return "", nil
	}
	return known.header, nil
}

func (c *Client) remember(h *host, scope string, t token) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tokens) >= maxTokens {
		clear(c.tokens)
	}
	c.tokens[tokenKey(h, scope)] = t
}

// challenged answers what a registry asked: the Authorization header to send, or
// "" when there is nothing to offer.
func (c *Client) challenged(ctx context.Context, h *host, challenges []string, scope string) (string, error) {
	var creds Credentials
	if c.cfg.Credentials != nil {
		var err error
		if creds, err = c.cfg.Credentials(credentialHost(h)); err != nil {
			return "", err
		}
	}
	for _, challenge := range challenges {
		scheme, params := parseChallenge(challenge)
		switch {
		case scheme == "bearer" && creds.RegistryToken != "":
			return "Bearer " + creds.RegistryToken, nil
		case scheme == "bearer":
			t, err := c.token(ctx, h, params, scope, creds)
			if err != nil {
				return "", fmt.Errorf("token for %s: %w", h.server.Host, err)
			}
			c.remember(h, scope, t)
			return t.header, nil
		case scheme == "basic" && creds.Username != "":
			t := token{header: basic(creds)}
			c.remember(h, scope, t)
			return t.header, nil
		}
	}
	return "", nil
}

// credentialHost is the name under which credentials for a host are kept: a
// mirror has its own.
func credentialHost(h *host) string {
	if h.mirror {
		return h.server.Host
	}
	return h.registry
}

func basic(c Credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// token asks the realm of a challenge for one.
func (c *Client) token(ctx context.Context, h *host, params map[string]string, scope string, creds Credentials) (token, error) {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return token{}, fmt.Errorf("realm %q: %w", params["realm"], ErrInvalid)
	}
	if realm.Scheme == "http" && strings.HasPrefix(h.base(), "https:") {
		return token{}, fmt.Errorf("realm %q is not https: %w", realm.Redacted(), errRefused)
	}
	if params["scope"] != "" && scope == "" {
		scope = params["scope"]
	}
	req, err := tokenRequest(ctx, realm, params["service"], scope, creds)
	if err != nil {
		return token{}, err
	}
	way := h.redirected
	if h.owns(realm) {
		way = h.direct
	}
	answer, err := h.round(ctx, way, req)
	if err != nil {
		return token{}, err
	}
	if answer.StatusCode != http.StatusOK {
		return token{}, refusal(req.Method, answer)
	}
	raw, err := small(answer)
	if err != nil {
		return token{}, err
	}
	var got struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		return token{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if got.Token == "" {
		got.Token = got.AccessToken
	}
	if got.Token == "" {
		return token{}, fmt.Errorf("the answer has no token: %w", ErrInvalid)
	}
	life := max(tokenLife, time.Duration(got.ExpiresIn)*time.Second)
	return token{header: "Bearer " + got.Token, expires: time.Now().Add(life * 9 / 10)}, nil
}

// tokenRequest is a GET as the token specification has it, or OAuth2's POST when
// there is an identity token to exchange.
func tokenRequest(ctx context.Context, realm *url.URL, service, scope string, creds Credentials) (*http.Request, error) {
	form := url.Values{}
	if service != "" {
		form.Set("service", service)
	}
	if creds.IdentityToken != "" {
		form.Set("scope", scope)
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", creds.IdentityToken)
		form.Set("client_id", "sampan")
		text := form.Encode()
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(text))
		if err == nil {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		}
		return req, err
	}
	for _, s := range strings.Fields(scope) {
		form.Add("scope", s)
	}
	to := *realm
	q := to.Query()
	for k, v := range form {
		q[k] = v
	}
	to.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err == nil && creds.Username != "" {
		req.Header.Set("Authorization", basic(creds))
	}
	return req, err
}

// parseChallenge reads one WWW-Authenticate header (RFC 9110, section 11.6.1).
func parseChallenge(header string) (scheme string, params map[string]string) {
	scheme, rest, _ := strings.Cut(header, " ")
	params = map[string]string{}
	for rest = strings.TrimSpace(rest); rest != ""; {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		var value string
		if strings.HasPrefix(after, `"`) {
			value, after, _ = strings.Cut(after[1:], `"`)
			after = strings.TrimPrefix(strings.TrimSpace(after), ",")
		} else {
			value, after, _ = strings.Cut(after, ",")
		}
		params[strings.ToLower(strings.TrimSpace(key))] = strings.TrimSpace(value)
		rest = strings.TrimSpace(after)
	}
	return strings.ToLower(scheme), params
}

// errorText is the message in a registry's error body (distribution
// specification, "Error Codes"), on one line.
func errorText(raw []byte) string {
	var body struct {
		Errors []struct{ Code, Message string } `json:"errors"`
	}
	if err := json.Unmarshal(raw, &body); err != nil || len(body.Errors) == 0 {
		line, _, _ := strings.Cut(strings.TrimSpace(string(raw)), "\n")
		return strings.ToValidUTF8(line[:min(len(line), 200)], "?")
	}
	var texts []string
	for _, e := range body.Errors {
		texts = append(texts, strings.TrimSpace(e.Code+": "+e.Message))
	}
	return strings.Join(texts, "; ")
}

// Ping asks a registry whether it is there and takes the credentials.
func (c *Client) Ping(ctx context.Context, registry string) error {
	hosts, err := c.hostsOf(registry)
	if err != nil {
		return err
	}
	own := hosts[len(hosts)-1]
	answer, err := c.do(ctx, own, request{method: http.MethodGet, path: "/", want: []int{http.StatusOK}})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, maxSmall))
	return errors.Join(err, answer.Body.Close())
}
