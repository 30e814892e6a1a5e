package atrest

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"
)

// maxConfig bounds the file, in bytes.
const maxConfig = 1 << 20

// kmsTimeout is how long a plugin may take when the file does not say; upstream's.
const kmsTimeout = 3 * time.Second

// configuration is apiserver.config.k8s.io/v1 EncryptionConfiguration.
type configuration struct {
	metav1.TypeMeta
	Resources []resourceRule `json:"resources"`
}

type resourceRule struct {
	Resources []string   `json:"resources"`
	Providers []provider `json:"providers"`
}

type provider struct {
	AESGCM    *keyList   `json:"aesgcm,omitempty"`
	AESCBC    *keyList   `json:"aescbc,omitempty"`
	Secretbox *keyList   `json:"secretbox,omitempty"`
	Identity  *struct{}  `json:"identity,omitempty"`
	KMS       *kmsConfig `json:"kms,omitempty"`
}

type keyList struct {
	Keys []namedKey `json:"keys"`
}

type namedKey struct {
	Name   string `json:"name"`
	Secret string `json:"secret"`
}

type kmsConfig struct {
	APIVersion string           `json:"apiVersion,omitempty"`
	Name       string           `json:"name"`
	CacheSize  *int32           `json:"cachesize,omitempty"`
	Endpoint   string           `json:"endpoint"`
	Timeout    *metav1.Duration `json:"timeout,omitempty"`
}

// load reads, completes and checks the file at path.
func load(path string) (*configuration, []byte, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, fmt.Errorf("encryption configuration: %w", err)
	}
	if len(raw) > maxConfig {
		return nil, nil, fmt.Errorf("encryption configuration %q: %d bytes, at most %d", path, len(raw), maxConfig)
	}
	c := &configuration{}
	if err := yaml.UnmarshalStrict(raw, c); err != nil {
		return nil, nil, fmt.Errorf("encryption configuration %q: %w", path, err)
	}
	if c.Kind != "EncryptionConfiguration" || c.APIVersion != "apiserver.config.k8s.io/v1" {
		return nil, nil, fmt.Errorf("encryption configuration %q: got %s %s, want apiserver.config.k8s.io/v1 EncryptionConfiguration", path, c.APIVersion, c.Kind)
	}
	for i := range c.Resources {
		for _, p := range c.Resources[i].Providers {
			if k := p.KMS; k != nil {
				if k.APIVersion == "" {
					k.APIVersion = "v1" // upstream's default, which it then refuses
				}
				if k.Timeout == nil {
					k.Timeout = &metav1.Duration{Duration: kmsTimeout}
				}
			}
		}
	}
	if errs := c.check(); len(errs) > 0 {
		return nil, nil, fmt.Errorf("encryption configuration %q: %w", path, errs.ToAggregate())
	}
	return c, raw, nil
}

// check reports everything wrong at once, in upstream's words.
func (c *configuration) check() (errs field.ErrorList) {
	root := field.NewPath("resources")
	if len(c.Resources) == 0 {
		return field.ErrorList{field.Required(root, "at least one resources is required")}
	}
	names := map[string]bool{}
	for i, rule := range c.Resources {
		resources, providers := root.Index(i).Child("resources"), root.Index(i).Child("providers")
		if len(rule.Resources) == 0 {
			errs = append(errs, field.Required(resources, fmt.Sprintf("at least one %s is required", resources)))
		}
		errs = append(errs, checkResources(rule.Resources, resources)...)
		if len(rule.Providers) == 0 {
			errs = append(errs, field.Required(providers, fmt.Sprintf("at least one %s is required", providers)))
		}
		for j, p := range rule.Providers {
			errs = append(errs, p.check(providers.Index(j), names)...)
		}
	}
	return errs
}

func checkResources(all []string, at *field.Path) (errs field.ErrorList) {
	if problem := overlap(all); problem != "" {
		errs = append(errs, field.Invalid(at, all, problem))
	}
	for i, name := range all {
		gr := schema.ParseGroupResource(name)
		var problem string
		switch {
		case strings.ToLower(name) != name:
			problem = "resource name should not contain capital letters"
		case name == "*":
			problem = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
		case slices.Contains([]string{"apiserveripinfo", "serviceipallocations", "servicenodeportallocations"}, name):
			problem = "resources which do not have REST API/s cannot be encrypted"
		case gr.Group == "events.k8s.io":
			problem = "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
		case gr.Group == "extensions":
			problem = "'extensions' group has been removed and cannot be used for encryption"
		case gr.Group == "*" && gr.Resource != "*":
			problem = "encrypting the same resource across groups is not supported"
		default:
			continue
		}
		errs = append(errs, field.Invalid(at.Index(i), name, problem))
	}
	return errs
}

// overlap says how two names of one list mask each other, or "".
func overlap(all []string) string {
	const same, masked = "the same resource cannot be specified multiple times",
		"using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"
	for i, a := range all {
		if slices.Contains(all[:i], a) {
			return same
		}
	}
	for i, a := range all {
		for j, b := range all {
			ga, gb := schema.ParseGroupResource(a), schema.ParseGroupResource(b)
			if i != j && (a == "*.*" || ga.Group == gb.Group && (ga.Resource == "*" || gb.Resource == "*")) {
				return masked
			}
		}
	}
	return ""
}

func (p provider) check(at *field.Path, names map[string]bool) field.ErrorList {
	given := 0
	for _, there := range []bool{p.AESGCM != nil, p.AESCBC != nil, p.Secretbox != nil, p.Identity != nil, p.KMS != nil} {
		if there {
			given++
		}
	}
	switch {
	case given == 0:
		return field.ErrorList{field.Invalid(at, "", "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity")}
	case given > 1:
		return field.ErrorList{field.Invalid(at, "", "more than one provider specified in a single element, should split into different list elements")}
	case p.AESGCM != nil:
		return p.AESGCM.check(at.Child("aesgcm", "keys"), 16, 24, 32)
	case p.AESCBC != nil:
		return p.AESCBC.check(at.Child("aescbc", "keys"), 16, 24, 32)
	case p.Secretbox != nil:
		return p.Secretbox.check(at.Child("secretbox", "keys"), 32)
	case p.KMS != nil:
		return p.KMS.check(at.Child("kms"), names)
	}
	return nil
}

func (k *keyList) check(at *field.Path, sizes ...int) (errs field.ErrorList) {
	if len(k.Keys) == 0 {
		return field.ErrorList{field.Required(at, "at least one keys is required")}
	}
	for i, key := range k.Keys {
		name, secret := at.Index(i).Child("name"), at.Index(i).Child("secret")
		if key.Name == "" {
			errs = append(errs, field.Required(name, "name is a mandatory field for a key"))
		}
		if strings.Contains(key.Name, ":") {
			errs = append(errs, field.Invalid(name, key.Name, "must not contain ':'"))
		}
		if key.Secret == "" {
			errs = append(errs, field.Required(secret, "secret is a mandatory field for a key"))
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(key.Secret)
		switch {
		case err != nil:
			errs = append(errs, field.Invalid(secret, "REDACTED", "secrets must be base64 encoded"))
		case !slices.Contains(sizes, len(raw)):
			errs = append(errs, field.Invalid(secret, "REDACTED", fmt.Sprintf("secret is not of the expected length, got %d, expected one of %v", len(raw), sizes)))
		}
	}
	return errs
}

func (k *kmsConfig) check(at *field.Path, names map[string]bool) (errs field.ErrorList) {
	name, endpoint := at.Child("name"), at.Child("endpoint")
	switch {
	case k.Name == "":
		errs = append(errs, field.Required(name, "name is a mandatory field for a provider"))
	case strings.Contains(k.Name, ":"):
		errs = append(errs, field.Invalid(name, k.Name, fmt.Sprintf("invalid KMS provider name %s, must not contain ':'", k.Name)))
	case names[k.Name]:
		errs = append(errs, field.Invalid(name, k.Name, fmt.Sprintf("duplicate KMS provider name %s, names must be unique", k.Name)))
	}
	names[k.Name] = true
	if k.Timeout.Duration <= 0 {
		errs = append(errs, field.Invalid(at.Child("timeout"), k.Timeout, "timeout should be a positive value"))
	}
	u, err := url.Parse(k.Endpoint)
	switch {
	case k.Endpoint == "":
		errs = append(errs, field.Invalid(endpoint, "", "endpoint is a mandatory field for a kms"))
	case err != nil:
		errs = append(errs, field.Invalid(endpoint, k.Endpoint, fmt.Sprintf("invalid endpoint for kms provider, error: %v", err)))
	case u.Scheme != "unix":
		errs = append(errs, field.Invalid(endpoint, k.Endpoint, fmt.Sprintf("unsupported scheme %q for KMS provider, only unix is supported", u.Scheme)))
	}
	switch {
	case k.APIVersion == "v1":
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead."))
	case k.APIVersion != "v2":
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, "unsupported apiVersion apiVersion for KMS provider, only v1 and v2 are supported"))
	case k.CacheSize != nil:
		errs = append(errs, field.Invalid(at.Child("cachesize"), *k.CacheSize, "cachesize is not supported in v2"))
	}
	return errs
}
