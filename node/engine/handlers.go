package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/validation"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/engine/cdi"
)

// featuresTimeout bounds the question what a runtime can do.
const featuresTimeout = 5 * time.Second

// checkHandler refuses a handler that nobody is, with containerd's words, and what
// other runtimes are not asked for.
func (e *Engine) checkHandler(r *rt.RunPodSandboxRequest) error {
	name := r.GetRuntimeHandler()
	if !e.knownHandler(name) {
		return invalid("failed to get sandbox runtime: no runtime for %q is configured", name)
	}
	if e.cfg.Runtimes[name] != "" && userNamespace(r.GetConfig()) {
		return invalid("runtime handler %q does not support user namespaces", name)
	}
	return nil
}

// checkRuntimes finds early what no pod could be run with.
func checkRuntimes(all map[string]string) error {
	for name, path := range all {
		switch {
		case name == "" || name == Name:
			return fmt.Errorf("runtime handler %q is the engine's own", name)
		case len(validation.IsDNS1123Label(name)) > 0:
			return fmt.Errorf("runtime handler %q is no name for one: %s", name, validation.IsDNS1123Label(name)[0])
		case !filepath.IsAbs(path):
			return fmt.Errorf("runtime handler %q: path %q is not absolute", name, path)
		}
		if err := unix.Access(path, unix.X_OK); err != nil {
			return fmt.Errorf("runtime handler %q: %w", name, &os.PathError{Op: "access", Path: path, Err: err})
		}
	}
	return nil
}

// usualHandler is what containerd and CRI-O call the runtime that they have from the
// start, and so what most RuntimeClasses name. It is the engine's own, unless another
// program is configured under that name.
const usualHandler = "runc"

func (e *Engine) knownHandler(name string) bool {
	_, foreign := e.cfg.Runtimes[name]
	return foreign || name == "" || name == Name || name == usualHandler
}

// handlers are all that a sandbox may name. The engine's own comes under each of
// its names: none, what it is called, and what everybody calls it.
func (e *Engine) handlers() []*rt.RuntimeHandler {
	own := &rt.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true}
	out := []*rt.RuntimeHandler{{Name: "", Features: own}, {Name: Name, Features: own}}
	if _, foreign := e.cfg.Runtimes[usualHandler]; !foreign {
		out = append(out, &rt.RuntimeHandler{Name: usualHandler, Features: own})
	}
	for _, name := range slices.Sorted(maps.Keys(e.cfg.Runtimes)) {
		if name != "" && name != Name {
			out = append(out, &rt.RuntimeHandler{Name: name, Features: e.foreign.of(e.cfg.Runtimes[name])})
		}
	}
	return out
}

// foreignFeatures remembers what other runtimes say that they can do.
type foreignFeatures struct {
	mu    sync.Mutex
	known map[string]*rt.RuntimeHandlerFeatures
}

// of asks the program at path once. One that does not answer can do the least.
func (f *foreignFeatures) of(path string) *rt.RuntimeHandlerFeatures {
	f.mu.Lock()
	defer f.mu.Unlock()
	if got, ok := f.known[path]; ok {
		return got
	}
	ctx, cancel := context.WithTimeout(context.Background(), featuresTimeout)
	defer cancel()
	got, said := &rt.RuntimeHandlerFeatures{}, features.Features{}
	if b, err := exec.CommandContext(ctx, path, "features").Output(); err == nil && json.Unmarshal(b, &said) == nil {
		got.RecursiveReadOnlyMounts = slices.Contains(said.MountOptions, "rro")
	}
	if f.known == nil {
		f.known = map[string]*rt.RuntimeHandlerFeatures{}
	}
	f.known[path] = got
	return got
}

// devices puts the CDI devices of a container into its specification.
func (e *Engine) devices(oci *specs.Spec, c *rt.ContainerConfig) error {
	var named []string
	for _, d := range c.GetCDIDevices() {
		named = append(named, d.GetName())
	}
	names, err := cdi.Requested(named, c.GetAnnotations())
	if err != nil {
		return fmt.Errorf("CDI device injection failed: %w", err)
	}
	if len(names) == 0 {
		return nil
	}
	if err := cdi.Read(e.cfg.CDIDirs).Apply(oci, names); err != nil {
		return fmt.Errorf("CDI device injection failed: %w", err)
	}
	return nil
}
