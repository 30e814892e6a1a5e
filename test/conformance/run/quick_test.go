package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// mainEnv makes the test binary be the program.
const mainEnv = "SAMPAN_CONFORMANCE_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// quick are a dozen specs that take some seconds together, and touch every part:
// discovery, watches, admission, kubectl, controllers, volumes, environment,
// probes' status, services.
var quick = []string{
	"[sig-api-machinery] server version should find the server version [Conformance]",
	"[sig-api-machinery] Discovery should validate PreferredVersion for each APIGroup [Conformance]",
	"[sig-api-machinery] Watchers should be able to start watching from a specific resource version [Conformance]",
	"[sig-auth] ServiceAccounts should create a serviceAccountToken and ensure a successful TokenReview [Conformance]",
	"[sig-auth] SubjectReview should support SubjectReview API operations [Conformance]",
	"[sig-cli] Kubectl client Kubectl api-versions should check if v1 is in available api versions [Conformance]",
	"[sig-network] EndpointSlice should create and delete EndpointSlices for a Service with a selector that matches no pods [Conformance]",
	"[sig-node] ConfigMap should run through a ConfigMap lifecycle [Conformance]",
	"[sig-node] Secrets should be consumable via the environment [Conformance] [NodeConformance]",
	"[sig-node] Containers should be able to override the image's default command and arguments [Conformance] [NodeConformance]",
	"[sig-storage] EmptyDir volumes should support (root,0644,tmpfs) [LinuxOnly] [Conformance] [NodeConformance]",
	"[sig-storage] Projected combined should project all components that make up the projection API [Projection] [Conformance] [NodeConformance]",
}

// TestQuick runs upstream's own specs, if the suite has been built.
func TestQuick(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a cluster needs namespaces, mounts and cgroups, which only root may make")
	}
	for _, made := range []string{"bin/sampan", "bin/kubectl", "bin/conformance/suite.test", "bin/conformance/images.tar"} {
		if _, err := os.Stat(filepath.Join("../../..", made)); errors.Is(err, fs.ErrNotExist) {
			t.Skipf("%s is not there: make conformance builds it", made)
		}
	}
	var focus []string
	for _, spec := range quick {
		focus = append(focus, "^"+regexp.QuoteMeta(spec)+"$")
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-focus", strings.Join(focus, "|"), "-record=false",
		"-report", filepath.Join(dir, "report"), "-data-dir", filepath.Join(dir, "d"), "-limit", "1m")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), mainEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if n := strings.Count(string(out), " passed "); n < len(quick) {
		t.Errorf("%d of %d specs passed:\n%s", n, len(quick), out)
	}
}

// Whatever is listed exists once, and what waits says why.
func TestLists(t *testing.T) {
	l, err := readLists("..")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, spec := range l.specs {
		if known[spec] {
			t.Errorf("listed twice: %s", spec)
		}
		known[spec] = true
	}
	for spec := range l.passing {
		if !known[spec] {
			t.Errorf("passing, but not listed: %s", spec)
		}
		if l.waiting[spec] != "" {
			t.Errorf("passing, and waiting: %s", spec)
		}
	}
	for spec := range l.waiting {
		if !known[spec] {
			t.Errorf("waiting, but not listed: %s", spec)
		}
	}
}
