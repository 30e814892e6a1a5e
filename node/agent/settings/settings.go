// Package settings reads a KubeletConfiguration
// (kubelet.config.k8s.io/v1beta1) from a file and a directory of additions to
// it, fills in what nobody has said, and checks the whole. What this agent
// can't do is refused by its name when a node that ignored it would be another
// node than the one asked for; what only tunes upstream's own workings is
// reported as a warning and has no effect.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

// Kubelet is upstream's type of the configuration.
type Kubelet = kubeletv1beta1.KubeletConfiguration

// The only kind and version that is read.
const (
	kind       = "KubeletConfiguration"
	apiVersion = "kubelet.config.k8s.io/v1beta1"
)

// cgroupfs is the engine's way to make cgroups.
const cgroupfs = "cgroupfs"

// dropInSuffix marks the files of a directory that count, as upstream has it.
const dropInSuffix = ".conf"

// Limits of what is read.
const (
	maxFile    = 1 << 20
	maxDropIns = 256
	maxDepth   = 32
)

// Loaded is a configuration as files say it, without defaults.
type Loaded struct {
	Kubelet Kubelet
	// TunesKernel: the files say protectKernelDefaults: false in so many words, so the
	// kernel's settings are to be made the kubelet's. Nothing said is not asked for.
	TunesKernel bool
	// Warnings tell of fields that have no effect, by name.
	Warnings []string
}

// Load reads file and, over it, the *.conf files of dir (and below) in the order of
// their names; either may be "". An object in a later file is merged into that
// of an earlier one, everything else is replaced. The error names the file and
// the field.
func Load(file, dir string) (Loaded, error) {
	merged := map[string]any{}
	files, skipped, err := sources(file, dir)
	if err != nil {
		return Loaded{}, err
	}
	var doubts []string
	for _, path := range skipped {
		doubts = append(doubts, fmt.Sprintf("file %q is passed over: its name does not end in %s", path, dropInSuffix))
	}
	for _, path := range files {
		doubt, err := read(path, merged)
		if err != nil {
			return Loaded{}, fmt.Errorf("kubelet configuration %q: %w", path, err)
		}
		if doubt != nil {
			doubts = append(doubts, fmt.Sprintf("file %q is read though it is not right: %v", path, doubt))
		}
	}
	data, err := json.Marshal(merged)
	if err != nil {
		return Loaded{}, fmt.Errorf("join kubelet configurations: %w", err)
	}
	var out Loaded
	if err := yaml.Unmarshal(data, &out.Kubelet); err != nil { // which takes 1 where a string is meant, as the files were read
		return Loaded{}, fmt.Errorf("join kubelet configurations: %w", err)
	}
	out.TunesKernel = merged["protectKernelDefaults"] == false
	warnings, refused := judge(merged)
	out.Warnings = slices.Concat(doubts, warnings)
	full := Complete(out.Kubelet)
	if err := errors.Join(errors.Join(refused...), Check(&full)); err != nil {
		return Loaded{}, fmt.Errorf("kubelet configuration: %w", err)
	}
	out.Warnings = append(out.Warnings, weak(&full)...)
	return out, nil
}

// weak tells of what the configuration allows, as upstream does, and should not.
func weak(c *Kubelet) []string {
	served, err := ServerTLS(c)
	if err != nil {
		return nil // Check has said it
	}
	all := append(futile(c.FeatureGates), served.Warnings...)
	if c.CgroupDriver != cgroupfs {
		all = append(all, fmt.Sprintf("cgroupDriver %s has no effect: which driver there is, is the engine's to say (%s), as upstream asks engines", c.CgroupDriver, cgroupfs))
	}
	if flush := c.Logging.FlushFrequency.Duration.Duration; flush != 0 && flush != logFlush || len(c.Logging.VModule) > 0 {
		all = append(all, "logging: format and verbosity alone have an effect: lines go to standard error, as they come")
	}
	if c.ReadOnlyPort != 0 {
		all = append(all, fmt.Sprintf("readOnlyPort %d shows the node's pods and figures to everybody who can reach it", c.ReadOnlyPort))
	}
	return all
}

// sources are the files to read, in order, and those that have another name than counts.
func sources(file, dir string) (list, skipped []string, err error) {
	if file != "" {
		list = append(list, file)
	}
	if dir == "" {
		return list, nil, nil
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
		case strings.HasSuffix(path, dropInSuffix):
			list = append(list, path)
		default:
			skipped = append(skipped, path)
		}
		if len(list)+len(skipped) > maxDropIns {
			return fmt.Errorf("more than %d files", maxDropIns)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("kubelet configuration directory %q: %w", dir, err)
	}
	return list, skipped, nil
}

// read checks one file by itself and merges it in. A field that there isn't, or that is
// there twice, is a doubt and no error, as upstream's kubelet reads v1beta1.
func read(path string, into map[string]any) (doubt, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("is larger than %d bytes", maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(data) == 0 {
		return nil, errors.New("is empty")
	}
	var typed, again Kubelet
	if doubt = yaml.UnmarshalStrict(data, &typed); doubt != nil {
		if err := yaml.Unmarshal(data, &again); err != nil {
			return nil, err
		}
		typed = again
	}
	if typed.Kind != kind || typed.APIVersion != apiVersion {
		return nil, fmt.Errorf("is a %s %s, want %s %s", typed.APIVersion, typed.Kind, apiVersion, kind)
	}
	var plain map[string]any
	if err := yaml.Unmarshal(data, &plain); err != nil {
		return nil, err
	}
	absolute(plain, filepath.Dir(path))
	merge(into, plain, maxDepth)
	return doubt, nil
}

// paths are the fields that name files, which are looked for beside the file that names
// them.
var paths = [][]string{
	{"staticPodPath"}, {"authentication", "x509", "clientCAFile"}, {"tlsCertFile"}, {"tlsPrivateKeyFile"}, {"resolvConf"}, {"volumePluginDir"}, {"podLogsDir"},
}

// absolute makes the paths of a configuration in dir absolute.
func absolute(plain map[string]any, dir string) {
	whole, err := filepath.Abs(dir)
	if err != nil {
		return // there is no working directory: paths stay what they are
	}
	for _, steps := range paths {
		last, in := len(steps)-1, plain
		for _, step := range steps[:last] {
			in, _ = in[step].(map[string]any)
		}
		if path, is := in[steps[last]].(string); is && path != "" && !filepath.IsAbs(path) {
			in[steps[last]] = filepath.Join(whole, path)
		}
	}
}

// merge puts src over dst: objects are merged, null removes, the rest replaces.
func merge(dst, src map[string]any, depth int) {
	for name, value := range src {
		inner, is := value.(map[string]any)
		old, was := dst[name].(map[string]any)
		switch {
		case value == nil:
			delete(dst, name)
		case is && was && depth > 0:
			merge(old, inner, depth-1)
		default:
			dst[name] = value
		}
	}
}

// judge looks at the fields that were given: which of them have no effect, and
// which must not be passed over.
func judge(given map[string]any) (warnings []string, refused []error) {
	var names []string
	for name := range given {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if why, ok := ignored[name]; ok && !idle(name, given[name]) {
			warnings = append(warnings, fmt.Sprintf("%s has no effect: %s", name, why))
		}
		if rule, ok := fixed[name]; ok && !rule.allows(given[name]) {
			refused = append(refused, fmt.Errorf("%s: %s", name, rule.why))
		}
	}
	return warnings, refused
}
