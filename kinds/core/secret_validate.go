package core

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

func validateSecret(s *corev1.Secret) field.ErrorList {
	var f kinds.Faults
	data := kinds.NewPath("data")
	total := 0
	for key, value := range s.Data {
		f.Join(validateDataKey(key, data.Key(key)))
		total += len(value)
	}
	if total > MaxSecretSize {
		f.TooLong(data, MaxSecretSize)
	}
	need := func(key string) {
		if _, ok := s.Data[key]; !ok {
			f.Required(data.Key(key), "")
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		f.NonEmpty(kinds.NewPath("metadata").Child("annotations").Key(corev1.ServiceAccountNameKey), s.Annotations[corev1.ServiceAccountNameKey])
	case corev1.SecretTypeDockercfg:
		checkJSON(&f, s, corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		checkJSON(&f, s, corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			need(corev1.BasicAuthUsernameKey)
			need(corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			f.Required(data.Key(corev1.SSHAuthPrivateKey), "")
		}
	case corev1.SecretTypeTLS:
		need(corev1.TLSCertKey)
		need(corev1.TLSPrivateKeyKey)
	}
	return f.List()
}

// checkJSON wants a JSON object under key. What is wrong is told, what is there
// is not.
func checkJSON(f *kinds.Faults, s *corev1.Secret, key string) {
	at := kinds.NewPath("data").Key(key)
	value, ok := s.Data[key]
	if !ok {
		f.Required(at, "")
		return
	}
	if err := json.Unmarshal(value, &map[string]any{}); err != nil {
		f.Invalid(at, "<secret contents redacted>", err.Error())
	}
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	var f kinds.Faults
	f.Immutable(kinds.NewPath("type"), s.Type, old.Type)
	if kinds.Deref(old.Immutable) {
		f.Join(validateStillImmutable(s.Immutable))
		if !kinds.Same(s.Data, old.Data) {
			f.Forbidden(kinds.NewPath("data"), immutableSet)
		}
	}
	f.Join(validateSecret(s))
	return f.List()
}
