package remote

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// hubKey is the name that Docker's config.json has for Docker Hub.
const hubKey = "https://index.docker.io/v1/"

// CredentialFile keeps credentials in the format of Docker's config.json, which
// docker, podman, skopeo and crane read as well. Other keys of the file stay. Where the
// file names a credential helper (credHelpers, credsStore), that keeps the secrets.
type CredentialFile struct {
	// Path is the file; it is made with mode 0600.
	Path string
}

// entry is one registry's in the file.
type entry struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// read gives the whole file and its auths; a missing file is an empty one.
func (f CredentialFile) read() (whole map[string]json.RawMessage, auths map[string]entry, err error) {
	whole, auths = map[string]json.RawMessage{}, map[string]entry{}
	raw, err := readLimited(f.Path)
	if errors.Is(err, os.ErrNotExist) {
		return whole, auths, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &whole)
	}
	if err == nil && whole["auths"] != nil {
		err = json.Unmarshal(whole["auths"], &auths)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("credentials %q: %w", f.Path, err)
	}
	return whole, auths, nil
}

// Get finds the credentials of a registry; none are the zero value.
func (f CredentialFile) Get(registry string) (Credentials, error) {
	h, err := f.helper(registry)
	if err != nil {
		return Credentials{}, err
	}
	if h != "" {
		if c, err := h.get(registry); err != nil || c != (Credentials{}) {
			return c, err
		}
	}
	_, auths, err := f.read()
	if err != nil {
		return Credentials{}, err
	}
	for key, e := range auths {
		if key != registry && registryOf(key) != registry {
			continue
		}
		c := Credentials{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
		if e.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(e.Auth)
			user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !ok {
				return Credentials{}, fmt.Errorf("credentials %q: auth of %q is not base64 of user:password: %w", f.Path, key, ErrInvalid)
			}
			c.Username, c.Password = user, password
		}
		return c, nil
	}
	return Credentials{}, nil
}

// registryOf is the host that a key of config.json means.
func registryOf(key string) string {
	if key == hubKey {
		return "docker.io"
	}
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, _, _ := strings.Cut(key, "/")
	if host == "index.docker.io" || host == dockerHost {
		return "docker.io"
	}
	return host
}

// Set keeps credentials for a registry.
func (f CredentialFile) Set(registry string, c Credentials) error {
	h, err := f.helper(registry)
	if err != nil {
		return err
	}
	if h != "" {
		if err := h.store(registry, c); err != nil {
			return err
		}
		c = Credentials{} // the file says that there are some, as docker's does
	}
	return f.change(func(auths map[string]entry) bool {
		forget(registry, auths)
		e := entry{IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken}
		if c.Username != "" {
			e.Auth = base64.StdEncoding.EncodeToString([]byte(c.Username + ":" + c.Password))
		}
		if registry == "docker.io" {
			registry = hubKey
		}
		auths[registry] = e
		return true
	})
}

// Delete forgets a registry's credentials, and says whether there were any.
func (f CredentialFile) Delete(registry string) (had bool, err error) {
	h, err := f.helper(registry)
	if err != nil {
		return false, err
	}
	if h != "" {
		if err := h.erase(registry); err != nil {
			return false, err
		}
	}
	err = f.change(func(auths map[string]entry) bool {
		had = forget(registry, auths)
		return had
	})
	return had, err
}

func forget(registry string, auths map[string]entry) (had bool) {
	for key := range auths {
		if key == registry || registryOf(key) == registry {
			delete(auths, key)
			had = true
		}
	}
	return had
}

// change rewrites the file, unless edit says that nothing has changed.
func (f CredentialFile) change(edit func(map[string]entry) bool) error {
	whole, auths, err := f.read()
	if err != nil || !edit(auths) {
		return err
	}
	raw, err := json.Marshal(auths)
	if err != nil {
		return err
	}
	whole["auths"] = raw
	text, err := json.MarshalIndent(whole, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o700); err != nil {
		return fmt.Errorf("credentials: %w", err)
	}
	return atomicfile.Write(f.Path, append(text, '\n'), 0o600)
}
