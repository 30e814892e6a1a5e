package sampan_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sampan-dev/sampan/"

// A rule says what a component may import of ours, and why no more. The longest
// prefix that fits a folder is its rule. "self" is always allowed.
type rule struct {
	folder string
	may    []string
	why    string
}

// The house (ARCHITECTURE.md). A rule that no folder needs any more fails the test.
var rules = []rule{
	{"internal", nil, "it is not about us: nothing of ours"},
	{"kinds", []string{"internal"}, "what a Pod is must be loadable anywhere: no I/O, no client, no store"},
	{"control/store", []string{"internal"}, "bytes and revisions only, so that the exam is small"},
	{"control/apiserver", []string{"kinds", "control/store", "internal"}, "it serves, it does not know who asks"},
	{"client", []string{"internal"}, "everyone goes through the door: no control"},
	{"reconcile", []string{"client", "internal"}, "a loop knows no kind by name"},
	{"control/scheduler", []string{"reconcile", "client", "internal", "kinds"}, "it talks through objects: no store, no server"},
	{"control/controller", []string{"reconcile", "client", "internal", "kinds"}, "they talk through objects: no store, no server"},
	{"control/fork", []string{"control", "kinds", "client", "reconcile", "internal"}, "a whole control plane on a copy of the state: the one place but cmd where its parts meet, and no node"},
	{"node/cri", []string{"internal"}, "it has its own words"},
	{"node/volume", []string{"reconcile", "client", "node/cri", "internal"}, "swap the engine and nothing moves"},
	{"node/agent", []string{"reconcile", "client", "node/cri", "node/volume", "node/device", "internal"}, "swap the engine and nothing moves"},
	{"node/hollow", []string{"client", "node/agent", "node/cri", "internal"}, "the real agent on an engine of nothing"},
	{"node/proxy", []string{"reconcile", "client", "node/cri", "internal"}, "it reads services, and speaks to the kernel"},
	{"node/peers", []string{"client", "internal"}, "it reads nodes, and speaks to the kernel"},
	{"node/dns", []string{"reconcile", "client", "node/cri", "internal"}, "it reads services, and answers"},
	{"node/segment", []string{"client", "internal"}, "it reads services, and speaks to the kernel"},
	{"node/engine", []string{"node/cri", "node/container", "node/image", "node/network", "internal"}, "it must run under a foreign kubelet: no client, no kinds"},
	{"node/container", []string{"internal"}, "separately testable host craft"},
	{"node/image", []string{"internal"}, "separately testable host craft"},
	{"node/registry", []string{"node/image", "internal"}, "it serves a store, whoever asks"},
	{"node/exchange", []string{"client", "node/image", "node/registry", "internal"}, "it reads nodes, and tells a store of them"},
	{"node/network", []string{"internal"}, "separately testable host craft"},
	{"node/build", []string{"node/container", "node/image", "node/network", "internal"}, "it needs no cluster"},
	{"cli", []string{"client", "node/image", "node/build", "internal"}, "asking a question starts nothing of the control plane"},
	{"cmd/keeper", []string{"internal", "node/container/plan"}, "it is tiny, and hardly ever changes"},
	{"cmd", []string{"*"}, "the only place where everything meets"},
	{"test", []string{"*"}, "tests may see everything"},
	{"examples", nil, "a user's program knows nothing of us"},
}

// A fence keeps a third party's packages in the folders that exist for them.
type fence struct {
	library string
	within  []string
	why     string
	// tests of any folder may use it: what a test links in costs no start.
	tests bool
}

var fences = []fence{
	{"go.etcd.io/", []string{"control/store/etcd"}, "the store's contract is ours; another engine must be able to take its place", false},
	{"github.com/vishvananda/", []string{"node/network", "node/proxy", "node/peers", "node/container", "test"}, "who changes the host's network is easy to find", false},
	{"github.com/google/nftables", []string{"node/network", "node/proxy", "node/segment", "internal/netfilter", "test"}, "who changes the packet filter is easy to find", false},
	{"google.golang.org/grpc", []string{"node/cri", "node/engine", "node/agent", "node/volume", "node/device", "control/store/etcd", "control/apiserver/atrest", "test"}, "gRPC is the CRI's and etcd's; the agent has its status codes and gRPC probes, and KMS plugins speak it", false},
	{"github.com/opencontainers/cgroups", []string{"node/container"}, "one back end for each cgroup version, behind one interface", false},
	{"github.com/moby/profiles/apparmor", []string{"node/engine"}, "it has a program of the host's started, to load the default profile", false},
	{"github.com/moby/buildkit", []string{"node/build"}, "the Dockerfile's syntax, nothing else of it", false},
	{"golang.org/x/crypto/ssh", []string{"node/build"}, "an agent over keys that a build is given; nobody logs in anywhere", false},
	{"github.com/ulikunitz/xz", []string{"node/build"}, "layers are never compressed so, only archives that people add", false},
	{"github.com/coreos/go-oidc", []string{"control/apiserver/authn"}, "one place believes foreign issuers of tokens", false},
	{"github.com/miekg/dns", []string{"node/dns", "test"}, "one place speaks DNS", false},
	{"k8s.io/kubectl", []string{"cmd/kubectl"}, "linked in, its init would cost every start 50 ms and more", true},
	{"k8s.io/client-go/kubernetes", []string{"test"}, "the typed clientset drags in every group", true},
	{"k8s.io/client-go/dynamic", []string{"test"}, "it drags the clientset in", false},
	{"k8s.io/apiserver", []string{"control/apiserver/crd", "control/apiserver/cel", "kinds/resource"}, "ours is the server; only leaf packages of it: CRD schemas, and the CEL environment of expressions", false},
	{"k8s.io/apiserver/pkg/server", nil, "never: theirs is another server", false},
	{"k8s.io/apiserver/pkg/admission", nil, "never: admission is ours, only the language of expressions is shared", false},
	{"k8s.io/apiserver/pkg/endpoints", nil, "never: the path of a request is ours", false},
	{"k8s.io/apiserver/pkg/registry", nil, "never: so is the store's", false},
	{"github.com/google/cel-go", []string{"control/apiserver/cel"}, "expressions are compiled and run in one place, within budgets", false},
	{"k8s.io/apiextensions-apiserver/pkg/apiserver", []string{"control/apiserver/crd", "kinds/apiextensions"}, "what a schema means is asked in two places: where a definition is judged, and where it is served", false},
	{"k8s.io/kube-aggregator/pkg/apis", []string{"control/apiserver", "control/controller", "internal/scheme", "kinds/apiregistration", "test"}, "its types alone", false},
	{"k8s.io/pod-security-admission", []string{"control/apiserver/admit"}, "one rule judges pods; its admission package would drag the clientset in", false},
	{"k8s.io/dynamic-resource-allocation", []string{"control/scheduler/device", "control/scheduler/plugin/devices", "control/controller/devicetaint", "kinds/resource"}, "which devices fit is asked in one plugin, over one set of books; whether a selector compiles where claims are judged; whose taints are not tolerated where pods are evicted", false},
	{"k8s.io/kube-scheduler", []string{"control/scheduler/profile", "control/scheduler/extender"}, "the form of configurations and of questions to extenders; decisions know neither", false},
	{"k8s.io/kubelet", []string{"node/agent", "node/volume", "node/device", "cmd/sampan"}, "what a node's plugins speak, and the form of its configuration", true},
	{"k8s.io/metrics", []string{"control/apiserver/metricsapi"}, "the form of what nodes and pods use; its clients are never linked", false},
	{"k8s.io/kubernetes", []string{"test/conformance"}, "never: upstream's tests alone", false},
	{"github.com/spf13/cobra", []string{"cli", "cmd"}, "flags are read in one place", false},
	{"github.com/spf13/pflag", []string{"cli"}, "cobra's flags", false},
}

func TestImports(t *testing.T) {
	usedRules, folders := map[string]bool{}, map[string]bool{}
	for file, imports := range sources(t) {
		folder := filepath.ToSlash(filepath.Dir(file))
		folders[folder] = true
		r, ok := ruleOf(folder)
		if !ok {
			if folder != "." {
				t.Errorf("%s: no rule covers this folder: give it one, with a reason", folder)
			}
			continue
		}
		usedRules[r.folder] = true
		for _, imported := range imports {
			checkOurs(t, file, imported, r)
			checkFences(t, file, folder, imported)
		}
	}
	for _, r := range rules {
		if !usedRules[r.folder] {
			t.Errorf("the rule for %q covers nothing any more: remove it", r.folder)
		}
	}
	for folder := range folders {
		for _, word := range strings.Split(folder, "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "types", "misc", "manager"}, word) {
				t.Errorf("%s: a package's name says what it is; %q is a drawer", folder, word)
			}
		}
	}
}

func checkOurs(t *testing.T, file, imported string, r rule) {
	ours, ok := strings.CutPrefix(imported, module)
	if !ok || within(ours, r.folder) || slices.Contains(r.may, "*") {
		return
	}
	if !slices.ContainsFunc(r.may, func(m string) bool { return within(ours, m) }) {
		t.Errorf("%s imports %s: %s may not, because %s", file, ours, r.folder, r.why)
	}
}

func checkFences(t *testing.T, file, folder, imported string) {
	for _, f := range fences {
		if f.tests && strings.HasSuffix(file, "_test.go") {
			continue
		}
		if strings.HasPrefix(imported, f.library) && !slices.ContainsFunc(f.within, func(w string) bool { return within(folder, w) }) {
			t.Errorf("%s imports %s, which belongs to %s: %s", file, imported, strings.Join(f.within, ", "), f.why)
		}
	}
}

// ruleOf is the rule with the longest folder that covers folder.
func ruleOf(folder string) (best rule, ok bool) {
	for _, r := range rules {
		if within(folder, r.folder) && len(r.folder) > len(best.folder) {
			best, ok = r, true
		}
	}
	return best, ok
}

func within(folder, parent string) bool {
	return folder == parent || strings.HasPrefix(folder, parent+"/")
}

// sources are the imports of every Go file of the module, tests included.
func sources(t *testing.T) map[string][]string {
	found := map[string][]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			if path != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || path == "internal/warm" || hasModule(path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		found[path] = []string{}
		for _, i := range file.Imports {
			imported, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			found[path] = append(found[path], imported)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// hasModule says whether a folder is a module of its own.
func hasModule(dir string) bool {
	found, err := filepath.Glob(filepath.Join(dir, "go.mod"))
	return err == nil && len(found) > 0
}
