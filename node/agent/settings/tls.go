package settings

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"strings"
)

// TLS is how the kubelet API is served over TLS.
type TLS struct {
	// MinVersion is a version of crypto/tls.
	MinVersion uint16
	// Suites are those that may be used up to TLS 1.2; nil means Go's choice.
	Suites []uint16
	// Curves are the key exchanges that may be used; nil means Go's choice.
	Curves []tls.CurveID
	// Warnings tell of what weakens the server, or has no effect.
	Warnings []string
}

// versions are TLS versions by upstream's names.
var versions = map[string]uint16{
	"": tls.VersionTLS12, "VersionTLS10": tls.VersionTLS10, "VersionTLS11": tls.VersionTLS11, "VersionTLS12": tls.VersionTLS12, "VersionTLS13": tls.VersionTLS13,
}

// legacy are suites' names from before their hash was part of them.
var legacy = map[string]uint16{
	"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
}

// ServerTLS reads tlsMinVersion, tlsCipherSuites and tlsCurvePreferences. Names that
// upstream's kubelet does not know are errors; what it allows though it is weak is a
// warning.
func ServerTLS(k *Kubelet) (TLS, error) {
	var out TLS
	version, ok := versions[k.TLSMinVersion]
	if !ok {
		return out, fmt.Errorf("tlsMinVersion: unknown tls version %q", k.TLSMinVersion)
	}
	out.MinVersion = version
	var bad []error
	for _, name := range k.TLSCipherSuites {
		id, weak, ok := suite(name)
		if !ok {
			bad = append(bad, fmt.Errorf("tlsCipherSuites: cipher suite %q is not supported or doesn't exist", name))
			continue
		}
		if weak {
			out.Warnings = append(out.Warnings, fmt.Sprintf("tlsCipherSuites: use of insecure cipher %s", name))
		}
		out.Suites = append(out.Suites, id)
	}
	if version == tls.VersionTLS13 && len(out.Suites) > 0 {
		out.Warnings = append(out.Warnings, "tlsCipherSuites has no effect: cipher suites of TLS 1.3 are not configurable")
	}
	if version < tls.VersionTLS12 {
		out.Warnings = append(out.Warnings, "tlsMinVersion "+k.TLSMinVersion+" allows versions of TLS that are broken")
	}
	curves, err := curves(k.TLSCurvePreferences)
	out.Curves = curves
	return out, errors.Join(append(bad, err)...)
}

// suite finds a suite of crypto/tls by its name.
func suite(name string) (id uint16, weak, ok bool) {
	if id, ok := legacy[name]; ok {
		return id, false, true
	}
	for _, s := range tls.CipherSuites() {
		if s.Name == name {
			return s.ID, false, true
		}
	}
	for _, s := range tls.InsecureCipherSuites() {
		if s.Name == name {
			return s.ID, true, true
		}
	}
	return 0, false, false
}

// curves are those of numbers that crypto/tls has a name for.
func curves(numbers []int32) ([]tls.CurveID, error) {
	var out []tls.CurveID
	seen := map[int32]bool{}
	for _, n := range numbers {
		switch {
		case n <= 0 || n > math.MaxUint16:
			return nil, fmt.Errorf("tlsCurvePreferences: %d is out of range (must be 1-%d)", n, math.MaxUint16)
		case seen[n]:
			return nil, fmt.Errorf("tlsCurvePreferences: %d is there twice", n)
		case strings.HasPrefix(tls.CurveID(n).String(), "CurveID("):
			return nil, fmt.Errorf("tlsCurvePreferences: %d is not supported by this version of Go", n)
		}
		seen[n] = true
		out = append(out, tls.CurveID(n))
	}
	return out, nil
}
