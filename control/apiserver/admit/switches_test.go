package admit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestSwitches(t *testing.T) {
	for _, c := range []struct {
		s    Switches
		want string
	}{
		{Switches{}, ""},
		{Switches{Enable: []string{"PodSecurity"}, Disable: []string{"DenyServiceExternalIPs", "ValidatingAdmissionWebhook"}}, ""},
		{Switches{Enable: []string{"PodSecurty"}}, `enable-admission-plugins plugin "PodSecurty" is unknown`},
		{Switches{Disable: []string{"Nothing"}}, `disable-admission-plugins plugin "Nothing" is unknown`},
		{Switches{Enable: []string{"Priority"}, Disable: []string{"Priority"}}, "overlapped"},
	} {
		err := c.s.Valid()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
	all := Default(Config{Dynamic: dynamicNames})
	left := Default(Config{Dynamic: dynamicNames, Switches: Switches{Disable: []string{"NodeRestriction", "ValidatingAdmissionWebhook"}}})
	if len(all)-len(left) != 3 || slices.ContainsFunc(left, func(p Plugin) bool { return p.Name == "NodeRestriction" }) {
		t.Errorf("%d rules of %d are left", len(left), len(all))
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("pods.yaml", "apiVersion: pod-security.admission.config.k8s.io/v1\nkind: PodSecurityConfiguration\n"+
		"defaults: {enforce: baseline, enforce-version: latest, audit: restricted}\nexemptions: {namespaces: [kube-system]}\n")
	const head = "apiVersion: apiserver.config.k8s.io/v1\nkind: AdmissionConfiguration\nplugins:\n"
	got, err := Load(write("good.yaml", head+"- {name: PodSecurity, path: pods.yaml}\n- name: ResourceQuota\n  configuration:\n"+
		"    apiVersion: apiserver.config.k8s.io/v1\n    kind: ResourceQuotaConfiguration\n    limitedResources:\n"+
		"    - {resource: persistentvolumeclaims, matchContains: [gold.storageclass.storage.k8s.io]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p := got.PodSecurity; p == nil || p.Defaults.Enforce != "baseline" || p.Defaults.Audit != "restricted" || p.Exemptions.Namespaces[0] != "kube-system" {
		t.Errorf("pod security %+v", p)
	}
	if len(got.QuotaLimits) != 1 || got.QuotaLimits[0].Resource.Resource != "persistentvolumeclaims" {
		t.Errorf("quota limits %+v", got.QuotaLimits)
	}
	for text, want := range map[string]string{
		"kind: Other\n":                                     "not an AdmissionConfiguration",
		head + "- {name: Nobody}\n":                         `admission plugin "Nobody" is unknown`,
		head + "- {name: Priority, path: pods.yaml}\n":      "no configuration is known",
		head + "- {name: PodSecurity, path: none.yaml}\n":   "unable to read admission control configuration",
		head + "- {name: ResourceQuota, path: pods.yaml}\n": "unknown field",
		head + "- {name: PodSecurity, configuration: {apiVersion: pod-security.admission.config.k8s.io/v1, kind: PodSecurityConfiguration, defaults: {enforce: harsh}}}\n": "pod security defaults",
	} {
		if _, err := Load(write("bad.yaml", text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
