package authn

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Claims that are elsewhere: OpenID Connect Core 1.0, section 5.6.2.
const (
	claimNames   = "_claim_names"
	claimSources = "_claim_sources"
)

// Limits of what is fetched from elsewhere.
const (
	// maxClaims bounds a token that a source of claims answers with, in bytes.
	maxClaims = 1 << 20
	// maxOtherIssuers bounds the issuers of such tokens: a token may name any
	// source, which may answer with a token of any issuer.
	maxOtherIssuers = 16
)

// source is where a claim is.
type source struct {
	URL         string `json:"endpoint"`
	AccessToken string `json:"access_token"`
	JWT         string `json:"JWT"`
}

// complete fetches the groups, if the token says that they are elsewhere. Other
// claims, and those that a source gives at once, are left where they are, as
// upstream.
func (i *jwtIssuer) complete(ctx context.Context, claims map[string]any) error {
	want := i.cfg.ClaimMappings.Groups.Claim
	if _, there := claims[want]; want == "" || there || claims[claimNames] == nil {
		return nil
	}
	var names map[string]string
	if err := reread(claims[claimNames], &names); err != nil {
		return fmt.Errorf("error parsing distributed claim names: %w", err)
	}
	if claims[claimSources] == nil {
		return fmt.Errorf("no claim sources")
	}
	var sources map[string]source
	if err := reread(claims[claimSources], &sources); err != nil {
		return fmt.Errorf("could not parse claim sources: %w", err)
	}
	name, ok := names[want]
	if !ok {
		return nil
	}
	from, ok := sources[name]
	switch {
	case !ok:
		return fmt.Errorf("id token _claim_names contained a source %s missing in _claims_sources", name)
	case from.URL == "":
		return nil
	}
	value, err := i.fetch(ctx, want, from)
	if err != nil {
		return err
	}
	claims[want] = value
	return nil
}

// reread turns a part of the claims into what it should be.
func reread(part, into any) error {
	raw, err := json.Marshal(part)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, into)
}

// fetch asks a source for a token, of whatever issuer, for the same audiences, and
// takes the claim out of it.
func (i *jwtIssuer) fetch(ctx context.Context, claim string, from source) (any, error) {
	token, err := i.ask(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("while getting distributed claim %q: %w", claim, err)
	}
	issuer := issuerOf(token)
	if issuer == "" {
		return nil, fmt.Errorf("getting untrusted issuer from endpoint %v failed for claim %q: malformed token", from.URL, claim)
	}
	keys, err := i.keysOf(ctx, issuer)
	if err != nil {
		return nil, fmt.Errorf("verifying untrusted issuer %v failed: %w", issuer, err)
	}
	claims, _, err := i.open(ctx, issuer, keys, token)
	if err != nil {
		return nil, fmt.Errorf("verify distributed claim token: %w", err)
	}
	value, ok := claims[claim]
	if !ok {
		return nil, fmt.Errorf("jwt returned by distributed claim endpoint %q did not contain claim: %v", from.URL, claim)
	}
	return value, nil
}

// ask gets the token of a source.
func (i *jwtIssuer) ask(ctx context.Context, from source) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from.URL, nil)
	if err != nil {
		return "", fmt.Errorf("while calling %v: %w", from.URL, err)
	}
	if from.AccessToken != "" {
		r.Header.Set("Authorization", "Bearer "+from.AccessToken)
	}
	answer, err := i.client.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode < http.StatusOK || answer.StatusCode > http.StatusIMUsed {
		return "", fmt.Errorf("error while getting distributed claim JWT: %s", answer.Status)
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxClaims+1))
	if err == nil && len(raw) > maxClaims {
		err = fmt.Errorf("it has more than %d bytes", maxClaims)
	}
	if err != nil {
		return "", fmt.Errorf("could not decode distributed claim response: %w", err)
	}
	return string(raw), nil
}

// keysOf are the keys of an issuer that a source's token names. They are found once
// for each; when there are too many, all are found anew.
func (i *jwtIssuer) keysOf(ctx context.Context, issuer string) (oidc.KeySet, error) {
	if issuer == i.cfg.Issuer.URL {
		return i.keySet(ctx)
	}
	i.othersMu.Lock()
	other, ok := i.others[issuer]
	if !ok {
		if len(i.others) >= maxOtherIssuers {
			clear(i.others)
		}
		other = &keeper{issuer: issuer, now: i.now, client: i.client}
		if i.others == nil {
			i.others = map[string]*keeper{}
		}
		i.others[issuer] = other
	}
	i.othersMu.Unlock()
	return other.keySet(ctx)
}
