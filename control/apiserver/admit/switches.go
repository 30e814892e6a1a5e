package admit

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kinds/quota"
)

// maxConfiguration bounds a configuration file, in bytes.
const maxConfiguration = 1 << 20

// Switches turn rules on and off by upstream's names of its admission plugins, as
// --enable-admission-plugins and --disable-admission-plugins do. Everything that
// there is is on unless it is disabled.
type Switches struct{ Enable, Disable []string }

// plugins are the names of all rules that can be switched.
func plugins() (names []string) {
	for _, p := range append(static(Config{}), dynamicNames...) {
		if p.Name != "" && !slices.Contains(names, p.Name) {
			names = append(names, p.Name)
		}
	}
	return append(names, "ResourceQuota", "PodGroupProtection")
}

// dynamicNames are those of Config.Dynamic.
var dynamicNames = Chain{{Name: "MutatingAdmissionPolicy"}, {Name: "MutatingAdmissionWebhook"},
	{Name: "ValidatingAdmissionPolicy"}, {Name: "ValidatingAdmissionWebhook"}}

// Valid says what is wrong with the names.
func (s Switches) Valid() error {
	if len(s.Enable)+len(s.Disable) == 0 {
		return nil
	}
	known := plugins()
	for _, name := range s.Enable {
		if !slices.Contains(known, name) {
			return fmt.Errorf("enable-admission-plugins plugin %q is unknown", name)
		}
		if slices.Contains(s.Disable, name) {
			return fmt.Errorf("[%s] in enable-admission-plugins and disable-admission-plugins overlapped", name)
		}
	}
	for _, name := range s.Disable {
		if !slices.Contains(known, name) {
			return fmt.Errorf("disable-admission-plugins plugin %q is unknown", name)
		}
	}
	return nil
}

// keep leaves the rules that are on.
func (s Switches) keep(all Chain) Chain {
	return slices.DeleteFunc(all, func(p Plugin) bool { return p.Name != "" && slices.Contains(s.Disable, p.Name) })
}

// Configured is what an AdmissionConfiguration configures.
type Configured struct {
	// PodSecurity is nil when the file does not speak of it.
	PodSecurity *PodSecurity
	QuotaLimits []QuotaLimit
}

// configuration is an AdmissionConfiguration of apiserver.config.k8s.io/v1.
type configuration struct {
	metav1.TypeMeta
	Plugins []struct {
		Name string `json:"name"`
		// Path is a file of its own, relative to this one.
		Path          string          `json:"path"`
		Configuration json.RawMessage `json:"configuration"`
	} `json:"plugins"`
}

// Load reads the file of an AdmissionConfiguration
// (--admission-control-config-file). It knows the configurations of PodSecurity and
// ResourceQuota, in all their versions; others are an error, for to ignore them
// would be to promise what is not kept.
func Load(path string) (Configured, error) {
	var out Configured
	raw, err := readFile(path)
	if err != nil {
		return out, err
	}
	var c configuration
	if err := yaml.UnmarshalStrict(raw, &c); err != nil {
		return out, fmt.Errorf("admission configuration %q: %w", path, err)
	}
	if c.Kind != "AdmissionConfiguration" || c.GroupVersionKind().Group != "apiserver.config.k8s.io" && c.GroupVersionKind().Group != "apiserver.k8s.io" {
		return out, fmt.Errorf("admission configuration %q: not an AdmissionConfiguration of apiserver.config.k8s.io, but %s", path, c.GroupVersionKind())
	}
	for _, p := range c.Plugins {
		own := []byte(p.Configuration)
		if len(own) == 0 && p.Path != "" {
			at := p.Path
			if !filepath.IsAbs(at) {
				at = filepath.Join(filepath.Dir(path), at)
			}
			if own, err = readFile(at); err != nil {
				return out, err
			}
		}
		if err := out.plugin(p.Name, own); err != nil {
			return out, fmt.Errorf("admission configuration %q: plugin %q: %w", path, p.Name, err)
		}
	}
	return out, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxConfiguration {
		err = fmt.Errorf("more than %d bytes", maxConfiguration)
	}
	var raw []byte
	if err == nil {
		raw, err = os.ReadFile(path) //nolint:gosec // the administrator's file
	}
	if err != nil {
		return nil, fmt.Errorf("unable to read admission control configuration from %q [%w]", path, err)
	}
	return raw, nil
}

func (c *Configured) plugin(name string, raw []byte) error {
	switch name {
	case "PodSecurity":
		return c.podSecurity(raw)
	case "ResourceQuota":
		return c.resourceQuota(raw)
	}
	if !slices.Contains(plugins(), name) {
		return fmt.Errorf("admission plugin %q is unknown", name)
	}
	if len(raw) > 0 {
		return fmt.Errorf("no configuration is known for it")
	}
	return nil
}

// podSecurity reads a PodSecurityConfiguration.
func (c *Configured) podSecurity(raw []byte) error {
	var in struct {
		metav1.TypeMeta
		Defaults struct {
			Enforce        string `json:"enforce"`
			EnforceVersion string `json:"enforce-version"`
			Audit          string `json:"audit"`
			AuditVersion   string `json:"audit-version"`
			Warn           string `json:"warn"`
			WarnVersion    string `json:"warn-version"`
		} `json:"defaults"`
		Exemptions struct {
			Usernames      []string `json:"usernames"`
			Namespaces     []string `json:"namespaces"`
			RuntimeClasses []string `json:"runtimeClasses"`
		} `json:"exemptions"`
	}
	if err := strictly(raw, &in, &in.TypeMeta, "PodSecurityConfiguration", "pod-security.admission.config.k8s.io"); err != nil {
		return err
	}
	c.PodSecurity = &PodSecurity{Defaults: PodSecurityDefaults(in.Defaults), Exemptions: PodSecurityExemptions{
		Usernames: in.Exemptions.Usernames, Namespaces: in.Exemptions.Namespaces, RuntimeClasses: in.Exemptions.RuntimeClasses}}
	return c.PodSecurity.Valid()
}

// resourceQuota reads a ResourceQuotaConfiguration.
func (c *Configured) resourceQuota(raw []byte) error {
	var in struct {
		metav1.TypeMeta
		Limited []struct {
			APIGroup      string                                     `json:"apiGroup"`
			Resource      string                                     `json:"resource"`
			MatchContains []string                                   `json:"matchContains"`
			MatchScopes   []corev1.ScopedResourceSelectorRequirement `json:"matchScopes"`
		} `json:"limitedResources"`
	}
	if err := strictly(raw, &in, &in.TypeMeta, "ResourceQuotaConfiguration", "apiserver.config.k8s.io"); err != nil {
		if err := strictly(raw, &in, &in.TypeMeta, "Configuration", "resourcequota.admission.k8s.io"); err != nil {
			return err
		}
	}
	for i, l := range in.Limited {
		if l.Resource == "" {
			return fmt.Errorf("limitedResources[%d].resource: Required value", i)
		}
		scopes := make([]quota.Requirement, 0, len(l.MatchScopes))
		scopes = append(scopes, l.MatchScopes...)
		c.QuotaLimits = append(c.QuotaLimits, QuotaLimit{Resource: schema.GroupResource{Group: l.APIGroup, Resource: l.Resource},
			MatchContains: l.MatchContains, MatchScopes: scopes})
	}
	return nil
}

// strictly decodes raw, which must be of kind, in any version of group.
func strictly(raw []byte, into any, meta *metav1.TypeMeta, kind, group string) error {
	if err := yaml.UnmarshalStrict(raw, into); err != nil {
		return err
	}
	if g, _, _ := strings.Cut(meta.APIVersion, "/"); meta.Kind != kind || g != group {
		return fmt.Errorf("not a %s of %s, but %s %s", kind, group, meta.APIVersion, meta.Kind)
	}
	return nil
}
