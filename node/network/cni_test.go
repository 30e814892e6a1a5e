package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain makes the test binary a CNI plugin when a network list runs it as
// one: it writes down how it was called and gives a fixed address.
func TestMain(m *testing.M) {
	command := os.Getenv("CNI_COMMAND")
	if command == "" {
		os.Exit(m.Run())
	}
	dir := filepath.Dir(os.Args[0])
	log, err := os.OpenFile(filepath.Join(dir, "calls"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(1)
	}
	fmt.Fprintln(log, command, os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_ARGS"))
	if _, err := os.Stat(filepath.Join(dir, "fail-"+command)); err == nil {
		fmt.Print(`{"cniVersion":"1.0.0","code":999,"msg":"told to fail"}`)
		os.Exit(1)
	}
	switch command {
	case "ADD":
		fmt.Print(`{"cniVersion":"1.0.0","ips":[{"address":"198.51.100.7/24"}]}`)
	case "VERSION":
		fmt.Print(`{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}`)
	}
}

func TestNetworkListTakesOver(t *testing.T) {
	w := newWorld(t)
	w.pod("before")
	bin := w.cfg.CNIBinDirs[0]
	self, err := os.Executable()
	w.must(err)
	w.must(os.Symlink(self, filepath.Join(bin, "vendor")))
	// A list whose plugins are not there is not for us.
	w.must(os.WriteFile(filepath.Join(w.cfg.CNIConfDir, "05-other.conflist"), []byte(`{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"absent"}]}`), 0o600))
	w.must(w.net.Check(t.Context()))
	list := filepath.Join(w.cfg.CNIConfDir, "10-vendor.conflist")
	w.must(os.WriteFile(list, []byte(`{"cniVersion":"1.0.0","name":"vendor","plugins":[{"type":"vendor"}]}`), 0o600))
	w.must(w.net.Check(t.Context()))

	w.pod("stranded")
	_, ips := w.pod("after")
	if fmt.Sprint(ips) != "[198.51.100.7]" {
		t.Errorf("addresses %v, want the plugin's", ips)
	}
	w.must(os.WriteFile(filepath.Join(bin, "fail-ADD"), nil, 0o600))
	s := newSpace(t)
	if _, err := w.net.Attach(t.Context(), Attachment{ID: "refused", NetNS: s.path}); err == nil || !strings.Contains(err.Error(), "told to fail") {
		t.Errorf("attach: %v, want the plugin's own words", err)
	}
	w.clean("refused")

	// The list may be gone by the time the pod goes.
	w.must(os.Remove(list))
	w.must(w.net.Detach(t.Context(), Attachment{ID: "after"}))
	w.must(w.net.Detach(t.Context(), Attachment{ID: "before"}))
	w.clean("after")
	w.clean("before")
	// So may the plugin: the pod goes all the same.
	w.must(os.Remove(filepath.Join(bin, "vendor")))
	w.must(w.net.Detach(t.Context(), Attachment{ID: "stranded"}))
	w.clean("stranded")
	calls, err := os.ReadFile(filepath.Join(bin, "calls"))
	w.must(err)
	args := " eth0 IgnoreUnknown=1;K8S_POD_NAMESPACE=%s;K8S_POD_NAME=%s;K8S_POD_INFRA_CONTAINER_ID=%s;K8S_POD_UID="
	want := fmt.Sprintf("ADD stranded"+args+"\nADD after"+args+"\nADD refused"+args+"\nDEL refused"+args+"\nDEL after"+args+"\n",
		"default", "stranded", "stranded", "default", "after", "after", "", "", "refused", "", "", "refused", "default", "after", "after")
	if string(calls) != want {
		t.Errorf("plugin saw\n%swant\n%s", calls, want)
	}
}

func TestPluginNamesArePlain(t *testing.T) {
	for _, bad := range []string{"../evil", "/bin/sh", "..", ""} {
		raw := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"x","plugins":[{"type":%q}]}`, bad)
		if _, err := parseConflist([]byte(raw)); err == nil {
			t.Errorf("plugin type %q was accepted", bad)
		}
	}
}
