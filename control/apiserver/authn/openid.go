package authn

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
)

// Where the keys and their description are served.
const (
	ConfigurationPath = "/.well-known/openid-configuration"
	KeysPath          = "/openid/v1/jwks"
)

// keysMaxAge lets others keep the keys for an hour, as upstream does.
const keysMaxAge = "public, max-age=3600"

// Discovery serves what others need to check our tokens. server is where they
// reach this server: "https://host:port".
func (t *Tokens) Discovery(server string) (map[string]http.Handler, error) {
	configuration, err := json.Marshal(map[string]any{
		"issuer":                                t.issuer,
		"jwks_uri":                              server + KeysPath,
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"ES256"},
	})
	if err != nil {
		return nil, fmt.Errorf("encode openid configuration: %w", err)
	}
	var set struct {
		Keys []map[string]string `json:"keys"`
	}
	for _, id := range slices.Sorted(maps.Keys(t.check)) {
		key, err := publicKey(id, t.check[id])
		if err != nil {
			return nil, err
		}
		set.Keys = append(set.Keys, key)
	}
	keys, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("encode token keys: %w", err)
	}
	return map[string]http.Handler{
		ConfigurationPath: document("application/json", configuration),
		KeysPath:          document("application/jwk-set+json", keys),
	}, nil
}

// publicKey is a P-256 key as RFC 7517 and RFC 7518 write it.
func publicKey(id string, key *ecdsa.PublicKey) (map[string]string, error) {
	point, err := key.Bytes() // 0x04, X, Y
	if err != nil {
		return nil, fmt.Errorf("encode token key %q: %w", id, err)
	}
	half := (len(point) - 1) / 2
	return map[string]string{
		"use": "sig", "kty": "EC", "kid": id, "crv": "P-256", "alg": "ES256",
		"x": base64.RawURLEncoding.EncodeToString(point[1 : 1+half]),
		"y": base64.RawURLEncoding.EncodeToString(point[1+half:]),
	}, nil
}

func document(kind string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.Header().Set("Cache-Control", keysMaxAge)
		_, _ = w.Write(body) // the client has gone: nobody to tell
	})
}
