package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// Annotations of a pod that ask for what the CRI has no words for. Whoever may make a
// pod may ask for it, so nothing here gives a container a share of the machine that its
// cgroups do not bound.
const (
	// UlimitsAnnotation are NAME=SOFT:HARD with commas between them; -1 is no limit.
	UlimitsAnnotation = "sampan.dev/ulimits"
	// PidsAnnotation is the most processes that each container may have, beside what
	// the node says.
	PidsAnnotation = "sampan.dev/pids-limit"
)

// limitsOf are the limits that a pod may ask for. What is not here are those that
// would put its processes before others': nice, rtprio and rttime.
var limitsOf = []string{ //nolint:gochecknoglobals // a constant list
	"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nofile", "nproc", "rss", "sigpending", "stack",
}

// NoNetwork says whether a pod has asked for none.
func NoNetwork(s *rt.PodSandboxConfig) bool {
	return s.GetAnnotations()[cri.NetworkAnnotation] == cri.NoNetwork
}

// Rlimits are the limits of processes that a pod asks for.
func Rlimits(s *rt.PodSandboxConfig) ([]specs.POSIXRlimit, error) {
	text := s.GetAnnotations()[UlimitsAnnotation]
	if text == "" {
		return nil, nil
	}
	var all []specs.POSIXRlimit
	for part := range strings.SplitSeq(text, ",") {
		l, err := rlimit(part)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %q: %w", UlimitsAnnotation, part, err)
		}
		all = slices.DeleteFunc(all, func(have specs.POSIXRlimit) bool { return have.Type == l.Type }) // the last one counts
		all = append(all, l)
	}
	return all, nil
}

func rlimit(text string) (l specs.POSIXRlimit, err error) {
	name, numbers, _ := strings.Cut(text, "=")
	if !slices.Contains(limitsOf, name) {
		return l, fmt.Errorf("want NAME=SOFT:HARD, where NAME is one of %s: %w", strings.Join(limitsOf, ", "), ErrInvalid)
	}
	soft, hard, two := strings.Cut(numbers, ":")
	if !two {
		hard = soft
	}
	l.Type = "RLIMIT_" + strings.ToUpper(name)
	for at, number := range map[*uint64]string{&l.Soft: soft, &l.Hard: hard} {
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < -1 {
			return l, fmt.Errorf("%q is no limit: %w", number, ErrInvalid)
		}
		*at = uint64(n) //nolint:gosec // -1 is no limit for the kernel too
	}
	if l.Soft > l.Hard {
		return l, fmt.Errorf("the soft limit is above the hard one: %w", ErrInvalid)
	}
	return l, nil
}

// pidsLimit is the less of what the node lets a container have, 0 for all, and what the
// pod asks for.
func pidsLimit(s *rt.PodSandboxConfig, node int64) (int64, error) {
	text := s.GetAnnotations()[PidsAnnotation]
	if text == "" {
		return node, nil
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("annotation %s: %q is no number of processes: %w", PidsAnnotation, text, ErrInvalid)
	}
	if node > 0 {
		n = min(n, node)
	}
	return n, nil
}
