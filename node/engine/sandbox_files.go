package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/engine/spec"
)

// Limits of what a sandbox's files may hold.
const (
	// maxSearches is glibc's own limit since 2.26 lifted the old one of six.
	maxSearches = 32
	// maxResolv and maxHosts bound what is copied of the host's files, in bytes.
	maxResolv, maxHosts = 64 << 10, 1 << 20
)

// filesDir holds a directory a sandbox, below Config.Run.
const filesDir = "sandboxes"

// files are where a sandbox's files are.
type files struct{ dir string }

func (e *Engine) files(id string) files { return files{filepath.Join(e.cfg.Run, filesDir, id)} }

func (f files) path(name string) string { return filepath.Join(f.dir, name) }

// visible are the files that a sandbox's containers see.
func (f files) visible(shm string) spec.Files {
	return spec.Files{Hostname: f.path("hostname"), Hosts: f.path("hosts"), ResolvConf: f.path("resolv.conf"), Shm: shm}
}

// nothing is an empty directory, where the containers' files have labels.
func (f files) nothing() string { return f.path("nothing") }

// make writes everything but hosts, which needs the addresses.
func (f files) make(c *rt.PodSandboxConfig) error {
	if err := os.MkdirAll(f.dir, 0o711); err != nil {
		return fmt.Errorf("make sandbox files: %w", err)
	}
	resolv, err := resolvConf(c.GetDnsConfig())
	if err != nil {
		return err
	}
	for name, content := range map[string]string{"resolv.conf": resolv, "hostname": hostname(c) + "\n"} {
		if err := os.WriteFile(f.path(name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("make sandbox files: %w", err)
		}
	}
	return nil
}

// makeHosts writes the file for containers whose pod brings none of its own. In
// the host's network the host's names hold: a copy, for it can be written to.
func (f files) makeHosts(c *rt.PodSandboxConfig, ips []netip.Addr) error {
	var b strings.Builder
	if hostNetwork(c) {
		raw, err := os.ReadFile("/etc/hosts")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read the host's names: %w", err)
		}
		b.Write(raw[:min(len(raw), maxHosts)])
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	}
	for _, ip := range ips {
		fmt.Fprintf(&b, "%s\t%s\n", ip, hostname(c))
	}
	if err := os.WriteFile(f.path("hosts"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("make sandbox files: %w", err)
	}
	return nil
}

func (f files) remove() error { return os.RemoveAll(f.dir) }

// resolvConf is what the pod asked for, or the host's own when it asked for
// nothing.
func resolvConf(d *rt.DNSConfig) (string, error) {
	if len(d.GetServers())+len(d.GetSearches())+len(d.GetOptions()) == 0 {
		raw, err := os.ReadFile("/etc/resolv.conf")
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		if err != nil {
			return "", fmt.Errorf("read the host's resolver configuration: %w", err)
		}
		return string(raw[:min(len(raw), maxResolv)]), nil
	}
	if len(d.GetSearches()) > maxSearches {
		return "", invalid("%d DNS search domains, at most %d are possible", len(d.GetSearches()), maxSearches)
	}
	var b strings.Builder
	if len(d.GetSearches()) > 0 {
		b.WriteString("search " + strings.Join(d.GetSearches(), " ") + "\n")
	}
	for _, s := range d.GetServers() {
		b.WriteString("nameserver " + s + "\n")
	}
	if len(d.GetOptions()) > 0 {
		b.WriteString("options " + strings.Join(d.GetOptions(), " ") + "\n")
	}
	if b.Len() > maxResolv {
		return "", invalid("DNS configuration has %d bytes, more than %d", b.Len(), maxResolv)
	}
	for _, line := range strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n") {
		if strings.ContainsAny(line, "\r\x00") || line == "" {
			return "", invalid("DNS configuration has a line break within a value")
		}
	}
	return b.String(), nil
}

// hostname is the pod's, or the host's where it has none. The CRI allows that for pods in
// the host's network alone, but crictl asks for it everywhere, and containerd gives it.
func hostname(c *rt.PodSandboxConfig) string {
	if c.GetHostname() != "" {
		return c.GetHostname()
	}
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

func namespaces(c *rt.PodSandboxConfig) *rt.NamespaceOption {
	return c.GetLinux().GetSecurityContext().GetNamespaceOptions()
}

func hostNetwork(c *rt.PodSandboxConfig) bool {
	return namespaces(c).GetNetwork() == rt.NamespaceMode_NODE
}
func hostIPC(c *rt.PodSandboxConfig) bool { return namespaces(c).GetIpc() == rt.NamespaceMode_NODE }
func hostPID(c *rt.PodSandboxConfig) bool { return namespaces(c).GetPid() == rt.NamespaceMode_NODE }
