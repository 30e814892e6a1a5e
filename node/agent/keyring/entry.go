package keyring

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Entry is one registry's in a file of credentials.
type Entry struct {
	Username, Password, Email, IdentityToken, RegistryToken string
}

// Entries are a file's, by registry.
type Entries map[string]Entry

// UnmarshalJSON implements json.Unmarshaler: user and password may come as one, in
// base64.
func (e *Entry) UnmarshalJSON(raw []byte) error {
	var said struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		Email         string `json:"email"`
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	}
	if err := json.Unmarshal(raw, &said); err != nil {
		return err
	}
	*e = Entry{said.Username, said.Password, said.Email, said.IdentityToken, said.RegistryToken}
	if said.Auth == "" {
		return nil
	}
	encoding := base64.RawStdEncoding
	if strings.HasSuffix(strings.TrimSpace(said.Auth), "=") {
		encoding = base64.StdEncoding
	}
	plain, err := encoding.DecodeString(said.Auth)
	if err != nil {
		return fmt.Errorf("auth: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
	if !ok {
		return errors.New("unable to parse auth field, must be formatted as base64(username:password)")
	}
	e.Username, e.Password = user, password
	return nil
}

// Parse reads a file as Docker writes it, config.json.
func Parse(raw []byte) (Entries, error) {
	var file struct {
		Auths Entries `json:"auths"`
	}
	err := json.Unmarshal(raw, &file)
	return file.Auths, err
}

// ParseOld reads a file as Docker wrote it long ago, .dockercfg.
func ParseOld(raw []byte) (Entries, error) {
	var entries Entries
	err := json.Unmarshal(raw, &entries)
	return entries, err
}

// OfSecret reads the entries of an image pull secret; one of another type has none.
func OfSecret(s *corev1.Secret) (Entries, error) {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		if raw := s.Data[corev1.DockerConfigJsonKey]; len(raw) > 0 {
			return Parse(raw)
		}
	case corev1.SecretTypeDockercfg:
		if raw := s.Data[corev1.DockerConfigKey]; len(raw) > 0 {
			return ParseOld(raw)
		}
	}
	return nil, nil
}
