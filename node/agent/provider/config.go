package provider

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	configv1 "k8s.io/kubelet/config/v1"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/node/agent/keyring"
)

// Versions of the questions that programs are asked in; that of service accounts is
// the last alone.
const (
	group   = "credentialprovider.kubelet.k8s.io"
	version = group + "/v1"
)

var versions = []string{version, group + "/v1alpha1", group + "/v1beta1"}

// configVersions are those of the configuration; what they say is the same.
var configVersions = []string{"kubelet.config.k8s.io/v1", "kubelet.config.k8s.io/v1beta1", "kubelet.config.k8s.io/v1alpha1"}

// Limits of what is read.
const (
	maxFile  = 1 << 20
	maxFiles = 256
)

// read joins the providers of a file, or of a directory's files in the order of their
// names, and names the whole by a hash.
func read(path string) ([]configv1.CredentialProvider, string, error) {
	files, err := sources(path)
	if err != nil {
		return nil, "", err
	}
	hash := sha256.New()
	var all []configv1.CredentialProvider
	seen := map[string]bool{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err == nil && len(raw) > maxFile {
			err = fmt.Errorf("is larger than %d bytes", maxFile)
		}
		if err != nil {
			return nil, "", fmt.Errorf("unable to read file %q: %w", file, err)
		}
		hash.Write(binary.BigEndian.AppendUint64(nil, uint64(len(raw))))
		hash.Write(raw)
		config := configv1.CredentialProviderConfig{}
		if err := yaml.UnmarshalStrict(raw, &config); err != nil {
			return nil, "", fmt.Errorf("error decoding config %q: %w", file, err)
		}
		if config.Kind != "CredentialProviderConfig" || !slices.Contains(configVersions, config.APIVersion) {
			return nil, "", fmt.Errorf("error decoding config %q: is a %s %s, want %s CredentialProviderConfig", file, config.APIVersion, config.Kind, configVersions[0])
		}
		for _, p := range config.Providers {
			if seen[p.Name] {
				return nil, "", fmt.Errorf("duplicate provider name %q found in configuration file(s)", p.Name)
			}
			seen[p.Name] = true
			all = append(all, p)
		}
	}
	return all, fmt.Sprintf("sha256:%x", hash.Sum(nil)), nil
}

func sources(path string) ([]string, error) {
	if path == "" {
		return nil, errors.New("credential provider config path is empty")
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("unable to access path %q: %w", path, err)
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("unable to read directory %q: %w", path, err)
	}
	var files []string
	for _, e := range entries { // which are sorted
		if !e.IsDir() && slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(e.Name())) {
			files = append(files, filepath.Join(path, e.Name()))
		}
	}
	switch {
	case len(files) == 0:
		return nil, fmt.Errorf("no configuration files found in directory %q", path)
	case len(files) > maxFiles:
		return nil, fmt.Errorf("more than %d files in directory %q", maxFiles, path)
	}
	return files, nil
}

// check says everything that is wrong with the providers, by upstream's rules.
func check(list []configv1.CredentialProvider, noTokens bool) error {
	at := field.NewPath("providers")
	var bad field.ErrorList
	if len(list) == 0 {
		bad = append(bad, field.Required(at, "at least 1 item in plugins is required"))
	}
	for _, p := range list {
		bad = append(bad, checkOne(p, at)...)
		if noTokens && p.TokenAttributes != nil {
			bad = append(bad, field.Forbidden(at.Child("tokenAttributes"), "tokenAttributes is not supported when KubeletServiceAccountTokenForCredentialProviders feature gate is disabled"))
		}
	}
	return bad.ToAggregate()
}

func checkOne(p configv1.CredentialProvider, at *field.Path) (bad field.ErrorList) {
	invalid := func(name string, value any, why string) { bad = append(bad, field.Invalid(at.Child(name), value, why)) }
	switch {
	case p.Name == "":
		bad = append(bad, field.Required(at.Child("name"), ""))
	case strings.Contains(p.Name, "/"):
		invalid("name", p.Name, "provider name cannot contain '/'")
	case strings.Contains(p.Name, " "):
		invalid("name", p.Name, "provider name cannot contain spaces")
	case p.Name == "." || p.Name == "..":
		invalid("name", p.Name, fmt.Sprintf("provider name cannot be '%s'", p.Name))
	}
	switch {
	case p.APIVersion == "":
		bad = append(bad, field.Required(at.Child("apiVersion"), ""))
	case !slices.Contains(versions, p.APIVersion):
		bad = append(bad, field.NotSupported(at.Child("apiVersion"), p.APIVersion, versions))
	}
	if len(p.MatchImages) == 0 {
		bad = append(bad, field.Required(at.Child("matchImages"), "at least 1 item in matchImages is required"))
	}
	for _, pattern := range p.MatchImages {
		if err := keyring.CheckPattern(pattern); err != nil {
			invalid("matchImages", pattern, "match image is invalid: "+err.Error())
		}
	}
	switch d := p.DefaultCacheDuration; {
	case d == nil:
		bad = append(bad, field.Required(at.Child("defaultCacheDuration"), ""))
	case d.Duration < 0:
		invalid("defaultCacheDuration", d.Duration.String(), "must be greater than or equal to 0")
	}
	if p.TokenAttributes != nil {
		bad = append(bad, checkTokens(p, at.Child("tokenAttributes"))...)
	}
	return bad
}

func checkTokens(p configv1.CredentialProvider, at *field.Path) (bad field.ErrorList) {
	t := p.TokenAttributes
	if t.ServiceAccountTokenAudience == "" {
		bad = append(bad, field.Required(at.Child("serviceAccountTokenAudience"), ""))
	}
	if t.RequireServiceAccount == nil {
		bad = append(bad, field.Required(at.Child("requireServiceAccount"), ""))
	}
	if p.APIVersion != version {
		bad = append(bad, field.Forbidden(at, "tokenAttributes is only supported for "+version+" API version"))
	}
	required, optional := t.RequiredServiceAccountAnnotationKeys, t.OptionalServiceAccountAnnotationKeys
	if t.RequireServiceAccount != nil && !*t.RequireServiceAccount && len(required) > 0 {
		bad = append(bad, field.Forbidden(at.Child("requiredServiceAccountAnnotationKeys"), "requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set"))
	}
	bad = append(bad, checkKeys(required, at.Child("requiredServiceAccountAnnotationKeys"))...)
	bad = append(bad, checkKeys(optional, at.Child("optionalServiceAccountAnnotationKeys"))...)
	for _, key := range required {
		if slices.Contains(optional, key) {
			bad = append(bad, field.Invalid(at, key, "annotation keys cannot be both required and optional"))
		}
	}
	types := []configv1.ServiceAccountTokenCacheType{configv1.ServiceAccountServiceAccountTokenCacheType, configv1.TokenServiceAccountTokenCacheType}
	switch {
	case t.CacheType == "":
		bad = append(bad, field.Required(at.Child("cacheType"), "cacheType is required to be set when tokenAttributes is specified. Supported values are: ServiceAccount, Token"))
	case !slices.Contains(types, t.CacheType):
		bad = append(bad, field.NotSupported(at.Child("cacheType"), t.CacheType, types))
	}
	return bad
}

func checkKeys(keys []string, at *field.Path) (bad field.ErrorList) {
	for i, key := range keys {
		for _, why := range validation.IsQualifiedName(strings.ToLower(key)) {
			bad = append(bad, field.Invalid(at, key, why))
		}
		if slices.Contains(keys[:i], key) {
			bad = append(bad, field.Duplicate(at, key))
		}
	}
	return bad
}
