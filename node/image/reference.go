package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// The registry that a bare name means, as people write it and as its API host
// is called.
const (
	defaultRegistry = "docker.io"
	defaultAPIHost  = "index.docker.io"
)

// Normalise writes ref the way the store keeps it: with registry, and with a
// tag or a digest ("busybox" is "docker.io/library/busybox:latest").
func Normalise(ref string) (string, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return "", fmt.Errorf("image reference %q: %w: %w", ref, ErrInvalid, err)
	}
	return spoken(parsed.Name()), nil
}

// spoken replaces the API host of the default registry by its name.
func spoken(full string) string {
	if rest, ok := strings.CutPrefix(full, defaultAPIHost+"/"); ok {
		return defaultRegistry + "/" + rest
	}
	return full
}

// repository is the part of a normalised reference before its tag or digest.
func repository(ref string) string {
	if at := strings.IndexByte(ref, '@'); at >= 0 {
		return ref[:at]
	}
	if colon := strings.LastIndexByte(ref, ':'); colon > strings.LastIndexByte(ref, '/') {
		return ref[:colon]
	}
	return ref
}

// hexDigits reports whether s could be a digest or the beginning of one.
func hexDigits(s string) bool {
	return len(s) >= minPrefix && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// minPrefix is the shortest abbreviated image ID that Get accepts.
const minPrefix = 6
