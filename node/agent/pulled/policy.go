package pulled

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/keyring"
)

// policy says of an image, and whether it is known to have been pulled for a pod,
// whether pods must have credentials for it.
func policy(name kubeletv1beta1.ImagePullCredentialsVerificationPolicy, allow []string) (func(image string, known bool) bool, error) {
	switch name {
	case kubeletv1beta1.NeverVerify:
		return func(string, bool) bool { return false }, nil
	case kubeletv1beta1.NeverVerifyPreloadedImages, "":
		return func(_ string, known bool) bool { return known }, nil
	case kubeletv1beta1.NeverVerifyAllowlistedImages:
		if err := CheckAllow(allow); err != nil {
			return nil, err
		}
		return func(image string, _ bool) bool { return !allowed(keyring.Bare(image), allow) }, nil
	case kubeletv1beta1.AlwaysVerify:
		return func(string, bool) bool { return true }, nil
	}
	return nil, fmt.Errorf("unknown image pull credential verification policy: %v", name)
}

// allowed says whether a list names an image, or what its name begins with.
func allowed(name string, list []string) bool {
	return slices.ContainsFunc(list, func(pattern string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(name, prefix)
		}
		return name == pattern
	})
}

// CheckAllow says what is wrong with a preloadedImagesVerificationAllowlist: names
// without tag and digest, and beginnings of names that end in /*.
func CheckAllow(list []string) error {
	for _, pattern := range list {
		if err := checkAllow(pattern); err != nil {
			return err
		}
	}
	return nil
}

func checkAllow(pattern string) error {
	prefix, wild := strings.CutSuffix(pattern, "/*")
	switch {
	case pattern != strings.TrimSpace(pattern):
		return fmt.Errorf("leading/trailing spaces are not allowed: %s", pattern)
	case pattern == "":
		return fmt.Errorf("the supplied pattern is too short: %s", pattern)
	case strings.Contains(prefix, "*"):
		return fmt.Errorf("not a valid wildcard pattern, only patterns ending with '/*' are allowed: %s", pattern)
	case wild && prefix == "":
		return errors.New("at least registry hostname is required")
	case wild:
		return nil
	}
	if _, err := keyring.Repository(pattern); err != nil {
		return fmt.Errorf("failed to parse as an image name: %w", err)
	}
	if keyring.Bare(pattern) != pattern {
		return fmt.Errorf("neither tag nor digest is accepted in an image reference: %s", pattern)
	}
	return nil
}
