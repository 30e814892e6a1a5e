package settings

import (
	"crypto/tls"
	"slices"
	"strings"
	"testing"
)

// TestServerTLS: upstream's names, and what is said of those that are wrong or weak.
func TestServerTLS(t *testing.T) {
	cases := []struct {
		text          string
		min           uint16
		suites        []uint16
		warning, want string
	}{
		{"", tls.VersionTLS12, nil, "", ""},
		{"tlsMinVersion: VersionTLS13\n", tls.VersionTLS13, nil, "", ""},
		{"tlsMinVersion: VersionTLS11\n", tls.VersionTLS11, nil, "allows versions of TLS that are broken", ""},
		{"tlsMinVersion: TLSv1.2\n", 0, nil, "", `unknown tls version "TLSv1.2"`},
		{"tlsCipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305]\n", tls.VersionTLS12,
			[]uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256}, "", ""},
		{"tlsCipherSuites: [TLS_RSA_WITH_RC4_128_SHA]\n", tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_RC4_128_SHA}, "insecure cipher TLS_RSA_WITH_RC4_128_SHA", ""},
		{"tlsCipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]\n", 0, nil, "", `"ECDHE-RSA-AES128-GCM-SHA256" is not supported`},
		{"tlsMinVersion: VersionTLS13\ntlsCipherSuites: [TLS_AES_128_GCM_SHA256]\n", tls.VersionTLS13, []uint16{tls.TLS_AES_128_GCM_SHA256}, "not configurable", ""},
		{"tlsCurvePreferences: [29, 23]\n", tls.VersionTLS12, nil, "", ""},
		{"tlsCurvePreferences: [29, 29]\n", 0, nil, "", "29 is there twice"},
		{"tlsCurvePreferences: [9]\n", 0, nil, "", "9 is not supported by this version of Go"},
		{"tlsCurvePreferences: [70000]\n", 0, nil, "", "out of range"},
		{"tlsCertFile: /a\n", 0, nil, "", "tlsCertFile and tlsPrivateKeyFile"},
	}
	for _, c := range cases {
		got, err := load(t, c.text, nil)
		if (err != nil) != (c.want != "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q: error %v, want %q", c.text, err, c.want)
		}
		if all := strings.Join(got.Warnings, "\n"); (all != "") != (c.warning != "") || !strings.Contains(all, c.warning) {
			t.Errorf("%q: warnings %q, want %q", c.text, all, c.warning)
		}
		if err != nil {
			continue
		}
		s, err := ServerTLS(&got.Kubelet)
		if err != nil || s.MinVersion != c.min || !slices.Equal(s.Suites, c.suites) {
			t.Errorf("%q: %+v %v", c.text, s, err)
		}
		if len(got.Kubelet.TLSCurvePreferences) > 0 && !slices.Equal(s.Curves, []tls.CurveID{tls.X25519, tls.CurveP256}) {
			t.Errorf("%q: curves %v", c.text, s.Curves)
		}
	}
}
