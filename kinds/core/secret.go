package core

import (
	"crypto/tls"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/kinds"
)

// Secret is the kind for small confidential data.
func Secret() *kinds.Kind {
	return &kinds.Kind{
		GVK:        gvk("Secret"),
		Resource:   "secrets",
		Singular:   "secret",
		Namespaced: true,
		Storage:    "secrets",
		New:        func() kinds.Object { return &corev1.Secret{} },
		NewList:    func() runtime.Object { return &corev1.SecretList{} },
		Strategy: kinds.Strategy{
			NamesOnUpdate:  true,
			Default:        kinds.Each(defaultSecret),
			PrepareUpdate:  kinds.Pair(prepareSecretUpdate),
			Validate:       kinds.Check(validateSecret),
			ValidateUpdate: kinds.CheckUpdate(validateSecretUpdate),
			Warnings:       kinds.Warn(secretWarnings),
		},
		Table: kinds.Table{
			Columns: kinds.Explained(secretTexts(), "Name", "Type", "Data", "Age"),
			Row: kinds.Row(func(s *corev1.Secret, now time.Time) []any {
				return []any{s.Name, string(s.Type), int64(len(s.Data)), kinds.Created(s, now)}
			}),
		},
		FieldLabels: []string{"type"},
		Fields:      kinds.Fields(func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} }),
	}
}

// defaultSecret takes stringData, which can only be written, over into data.
func defaultSecret(s *corev1.Secret) {
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
}

// prepareSecretUpdate keeps the type when a client leaves it out.
func prepareSecretUpdate(s, old *corev1.Secret) {
	if s.Type == "" {
		s.Type = old.Type
	}
}

// secretWarnings tell when a certificate is not the key's.
func secretWarnings(s, _ *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
