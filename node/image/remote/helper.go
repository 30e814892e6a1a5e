package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Limits of one call of a credential helper.
const (
	// helperTime is how long one may take: it may ask its person for a passphrase.
	helperTime = 5 * time.Minute
	// helperLingers is how long it may leave somebody behind who holds its output.
	helperLingers = time.Second
	// maxHelperOutput bounds what it prints, in bytes.
	maxHelperOutput = 64 << 10
)

// tokenUser is the user name by which a helper says that its secret is an identity
// token.
const tokenUser = "<token>"

// noCredentials is what a helper says that has none; the words are part of the
// protocol of docker-credential-helpers.
const noCredentials = "credentials not found"

// helper is the program docker-credential-NAME, which keeps credentials in the place
// of the file.
type helper string

// said is what a helper is told, and what it answers.
type said struct {
	ServerURL string
	Username  string
	Secret    string
}

// helper is that of a registry: its own, or that of all registries; "" is none.
func (f CredentialFile) helper(registry string) (helper, error) {
	whole, _, err := f.read()
	if err != nil {
		return "", err
	}
	own, all := map[string]string{}, ""
	for key, to := range map[string]any{"credHelpers": &own, "credsStore": &all} {
		if raw := whole[key]; raw != nil {
			if err := json.Unmarshal(raw, to); err != nil {
				return "", fmt.Errorf("credentials %q: %s: %w", f.Path, key, err)
			}
		}
	}
	name := all
	for key, its := range own {
		if key == registry || registryOf(key) == registry {
			name = its
		}
	}
	if strings.ContainsAny(name, `/\`) {
		return "", fmt.Errorf("credentials %q: helper %q is not a plain name: %w", f.Path, name, ErrInvalid)
	}
	return helper(name), nil
}

// serverKey is what helpers call a registry.
func serverKey(registry string) string {
	if registry == "docker.io" {
		return hubKey
	}
	return registry
}

// get asks for a registry's credentials; none are the zero value.
func (h helper) get(registry string) (Credentials, error) {
	out, err := h.call("get", []byte(serverKey(registry)))
	if err != nil {
		if strings.Contains(err.Error(), noCredentials) {
			return Credentials{}, nil
		}
		return Credentials{}, err
	}
	var s said
	if err := json.Unmarshal(out, &s); err != nil {
		return Credentials{}, fmt.Errorf("credential helper %q: its answer: %w", string(h), err)
	}
	if s.Username == tokenUser {
		return Credentials{IdentityToken: s.Secret}, nil
	}
	return Credentials{Username: s.Username, Password: s.Secret}, nil
}

// store gives a registry's credentials into its keeping.
func (h helper) store(registry string, c Credentials) error {
	s := said{ServerURL: serverKey(registry), Username: c.Username, Secret: c.Password}
	if c.IdentityToken != "" {
		s.Username, s.Secret = tokenUser, c.IdentityToken
	}
	raw, err := json.Marshal(s)
	if err == nil {
		_, err = h.call("store", raw)
	}
	return err
}

// erase makes it forget a registry's credentials.
func (h helper) erase(registry string) error {
	_, err := h.call("erase", []byte(serverKey(registry)))
	if err != nil && strings.Contains(err.Error(), noCredentials) {
		return nil
	}
	return err
}

// call runs the helper. Its errors are on stdout, as the protocol has it.
func (h helper) call(verb string, in []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), helperTime)
	defer cancel()
	var out, words bounded
	c := exec.CommandContext(ctx, "docker-credential-"+string(h), verb)
	c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = bytes.NewReader(in), &out, &words, helperLingers
	err := c.Run()
	if err == nil || errors.Is(err, exec.ErrWaitDelay) && ctx.Err() == nil {
		return out.b, nil
	}
	why := strings.TrimSpace(string(out.b) + " " + string(words.b))
	return nil, fmt.Errorf("credential helper %q: %s: %w: %.200s", string(h), verb, err, why)
}

// bounded keeps what is written to it, up to maxHelperOutput; more is an error.
type bounded struct{ b []byte }

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	if len(w.b)+len(p) > maxHelperOutput {
		return 0, fmt.Errorf("more than %d bytes: %w", maxHelperOutput, ErrTooLarge)
	}
	w.b = append(w.b, p...)
	return len(p), nil
}
