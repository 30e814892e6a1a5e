package core

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

// strictIPs refuses forms that parsers disagree about, as upstream since 1.36.
const strictIPs = true

// The limits of the C library's resolver.
const (
	maxNameservers     = 3
	maxSearchPaths     = 32
	maxSearchListChars = 2048
	// maxHostname is the longest name that the kernel keeps.
	maxHostname = 64
)

func (c *podCheck) checkDNS(at *kinds.Path) {
	config := c.spec.DNSConfig
	if c.spec.DNSPolicy == corev1.DNSNone {
		switch {
		case config == nil:
			c.Required(at, fmt.Sprintf("must provide `dnsConfig` when `dnsPolicy` is %s", corev1.DNSNone))
			return
		case len(config.Nameservers) == 0:
			c.Required(at.Child("nameservers"), fmt.Sprintf("must provide at least one DNS nameserver when `dnsPolicy` is %s", corev1.DNSNone))
			return
		}
	}
	if config == nil {
		return
	}
	servers, searches := at.Child("nameservers"), at.Child("searches")
	if len(config.Nameservers) > maxNameservers {
		c.Invalid(servers, config.Nameservers, fmt.Sprintf("must not have more than %v nameservers", maxNameservers))
	}
	for i, server := range config.Nameservers {
		c.Join(validateOldIP(server, servers.Index(i)))
	}
	if len(config.Searches) > maxSearchPaths {
		c.Invalid(searches, config.Searches, fmt.Sprintf("must not have more than %v search paths", maxSearchPaths))
	}
	if len(strings.Join(config.Searches, " ")) > maxSearchListChars {
		c.Invalid(searches, config.Searches, fmt.Sprintf("must not have more than %v characters (including spaces) in the search list", maxSearchListChars))
	}
	for i, search := range config.Searches {
		if search == "." {
			continue
		}
		name := strings.TrimSuffix(search, ".")
		c.Each(searches.Index(i), name, validation.IsDNS1123SubdomainWithUnderscore(name))
	}
	for i, option := range config.Options {
		if option.Name == "" {
			c.Required(at.Child("options").Index(i), "must not be empty")
		}
	}
}

// validateOldIP checks an address of a field that once took anything which Go
// could parse, and still says so in its messages.
func validateOldIP(ip string, at *kinds.Path) field.ErrorList {
	return validation.IsValidIPForLegacyField(at.Field(), ip, strictIPs, nil)
}

// checkHostNames checks what a pod is called and calls others.
func (c *podCheck) checkHostNames(at *kinds.Path) {
	spec := c.spec
	if spec.Hostname != "" {
		c.label(at.Child("hostname"), spec.Hostname)
	}
	if spec.Subdomain != "" {
		c.label(at.Child("subdomain"), spec.Subdomain)
	}
	for i, alias := range spec.HostAliases {
		here := at.Child("hostAliases").Index(i)
		c.Join(validateOldIP(alias.IP, here.Child("ip")))
		for j, name := range alias.Hostnames {
			c.Each(here.Child("hostnames").Index(j), name, validation.IsDNS1123Subdomain(name))
		}
	}
	if spec.HostnameOverride == nil {
		return
	}
	override := at.Child("hostnameOverride")
	if kinds.Deref(spec.SetHostnameAsFQDN) {
		c.Forbidden(override, "may not be specified when setHostnameAsFQDN is true")
	}
	if spec.HostNetwork {
		c.Forbidden(override, "may not be specified when hostNetwork is true")
	}
	if len(*spec.HostnameOverride) > maxHostname {
		c.TooLong(override, maxHostname)
	}
	c.Each(override, *spec.HostnameOverride, validation.IsDNS1123Subdomain(*spec.HostnameOverride))
}
