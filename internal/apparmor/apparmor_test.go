package apparmor

import (
	"strings"
	"testing"
)

func TestListed(t *testing.T) {
	const profiles = "docker-default (enforce)\nmy profile (complain)\n/usr/sbin/dnsmasq (enforce)\n"
	for name, want := range map[string]bool{
		"docker-default": true, "my profile": true, "/usr/sbin/dnsmasq": true,
		"docker": false, "my": false, "": false, "docker-default (enforce)": false,
	} {
		if got, err := listed(strings.NewReader(profiles), name); err != nil || got != want {
			t.Errorf("%q: got %v, %v, want %v", name, got, err, want)
		}
	}
}
