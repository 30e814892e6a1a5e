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
	// Warnings tell of fields that have no effect, by name.
	Warnings []string
}

// Load reads file and, over it, the *.conf files of dir (and below) in the order of
// their names; either may be "". An object in a later file is merged into that
// of an earlier one, everything else is replaced. The error names the file and
// the field.
func Load(file, dir string) (Loaded, error) {
	merged := map[string]any{}
	files, err := sources(file, dir)
	if err != nil {
		return Loaded{}, err
	}
	for _, path := range files {
		if err := read(path, merged); err != nil {
			return Loaded{}, fmt.Errorf("kubelet configuration %q: %w", path, err)
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
	warnings, refused := judge(merged)
	out.Warnings = warnings
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
	return append(futile(c.FeatureGates), served.Warnings...)
}

// sources are the files to read, in order.
func sources(file, dir string) ([]string, error) {
	var list []string
	if file != "" {
		list = append(list, file)
	}
	if dir == "" {
		return list, nil
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !d.IsDir() && strings.HasSuffix(path, dropInSuffix) {
			list = append(list, path)
		}
		if len(list) > maxDropIns {
			return fmt.Errorf("more than %d files", maxDropIns)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kubelet configuration directory %q: %w", dir, err)
	}
	return list, nil
}

// read checks one file by itself and merges it in.
func read(path string, into map[string]any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxFile {
		return fmt.Errorf("is larger than %d bytes", maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var typed Kubelet
	if err := yaml.UnmarshalStrict(data, &typed); err != nil {
		return err
	}
	if typed.Kind != kind || typed.APIVersion != apiVersion {
		return fmt.Errorf("is a %s %s, want %s %s", typed.APIVersion, typed.Kind, apiVersion, kind)
	}
	var plain map[string]any
	if err := yaml.Unmarshal(data, &plain); err != nil {
		return err
	}
	merge(into, plain, maxDepth)
	return nil
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
		if why, ok := ignored[name]; ok {
			warnings = append(warnings, fmt.Sprintf("%s has no effect: %s", name, why))
		}
		if rule, ok := fixed[name]; ok && !rule.allows(given[name]) {
			refused = append(refused, fmt.Errorf("%s: %s", name, rule.why))
		}
	}
	return warnings, refused
}
