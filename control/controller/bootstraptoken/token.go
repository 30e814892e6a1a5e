// Package bootstraptoken keeps two promises about the tokens with which new nodes
// join: the config map cluster-info in kube-public, by which a node comes to know
// the cluster, is signed with each of them (Signer), and a token goes away when
// its time is over (Cleaner). It follows upstream's pkg/controller/bootstrap.
package bootstraptoken

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What a token's secret is called and holds.
const (
	namePrefix = "bootstrap-token-"
	dataID     = "token-id"
	dataSecret = "token-secret"
	dataEnd    = "expiration"
	dataSigns  = "usage-bootstrap-signing"
)

// isToken says whether a secret is a bootstrap token.
func isToken(s *corev1.Secret) bool {
	return s.Namespace == metav1.NamespaceSystem && s.Type == corev1.SecretTypeBootstrapToken
}

// untilEnd is how long a token is still good: ok is false when it has no end. One
// whose end cannot be read has ended.
func untilEnd(s *corev1.Secret, now time.Time) (left time.Duration, ok bool) {
	text := string(s.Data[dataEnd])
	if text == "" {
		return 0, false
	}
	end, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, true
	}
	return end.Sub(now), true
}

// signingToken takes the token out of a secret that may sign.
func signingToken(s *corev1.Secret, now time.Time) (id, secret string, ok bool) {
	id, secret = string(s.Data[dataID]), string(s.Data[dataSecret])
	if id == "" || secret == "" || s.Name != namePrefix+id || string(s.Data[dataSigns]) != "true" {
		return "", "", false
	}
	if left, ends := untilEnd(s, now); ends && left <= 0 {
		return "", "", false
	}
	return id, secret, true
}

// detached is the JWS of content by the token, HS256, with the content left out
// (RFC 7515, appendix F).
func detached(content, id, secret string) (string, error) {
	header, err := json.Marshal(struct {
		Alg string `json:"alg"`
		Kid string `json:"kid"`
	}{"HS256", id})
	if err != nil {
		return "", fmt.Errorf("sign with token %q: %w", id, err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(encode(header) + "." + encode([]byte(content)))) // never fails
	return strings.Join([]string{encode(header), "", encode(mac.Sum(nil))}, "."), nil
}
