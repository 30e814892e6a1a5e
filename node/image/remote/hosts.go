package remote

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// maxHostsFile bounds a hosts.toml or a certificate in bytes.
const maxHostsFile = 1 << 20

// dockerHost is where Docker Hub's API is.
const dockerHost = "registry-1.docker.io"

// hostsOf are the servers to ask for a registry's content, in order: the mirrors
// that hosts.toml names, then the registry itself.
func (c *Client) hostsOf(registry string) ([]*host, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.hosts[registry]; known != nil {
		return known, nil
	}
	hosts, err := c.readHosts(registry)
	if err != nil {
		return nil, err
	}
	c.hosts[registry] = hosts
	return hosts, nil
}

// readHosts looks for the registry's directory, as containerd names them: the host
// with its port, "host_port_" where a colon is not wanted, or _default.
func (c *Client) readHosts(registry string) ([]*host, error) {
	names := []string{registry, "_default"}
	if name, port, ok := strings.Cut(registry, ":"); ok {
		names = []string{registry, name + "_" + port + "_", "_default"}
	}
	for _, name := range names {
		for _, dir := range c.cfg.HostDirs {
			at := filepath.Join(dir, name)
			if info, err := os.Stat(at); err != nil || !info.IsDir() {
				continue
			}
			return c.hostsIn(registry, at)
		}
	}
	own, err := c.newHost(hostConfig{registry: registry, server: serverOf(registry)})
	if err != nil {
		return nil, err
	}
	return []*host{own}, nil
}

// serverOf is the address of a registry that nobody has said anything about.
func serverOf(registry string) string {
	if registry == "docker.io" || registry == "index.docker.io" {
		return "https://" + dockerHost
	}
	return "https://" + registry
}

// hostConfig is one server as hosts.toml describes it.
type hostConfig struct {
	registry, server, dir string
	mirror                bool
	table                 table
}

// hostsIn reads a registry's directory: hosts.toml, or Docker's bare certificates.
func (c *Client) hostsIn(registry, dir string) ([]*host, error) {
	path := filepath.Join(dir, "hosts.toml")
	raw, err := readLimited(path)
	if errors.Is(err, os.ErrNotExist) {
		own, err := c.newHost(hostConfig{registry: registry, server: serverOf(registry), table: bareCertificates(dir), dir: dir})
		if err != nil {
			return nil, err
		}
		return []*host{own}, nil
	}
	if err != nil {
		return nil, err
	}
	root, order, err := parseTOML(string(raw))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var hosts []*host
	for _, name := range order {
		h, err := c.newHost(hostConfig{registry: registry, server: name, table: root.sub("host").sub(name), mirror: true, dir: dir})
		if err != nil {
			return nil, fmt.Errorf("%s: host %q: %w", path, name, err)
		}
		hosts = append(hosts, h)
	}
	server := root.text("server")
	if server == "" {
		server = serverOf(registry)
	}
	own, err := c.newHost(hostConfig{registry: registry, server: server, table: root, dir: dir})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return append(hosts, own), nil
}

// newHost makes a host of its description.
func (c *Client) newHost(cfg hostConfig) (*host, error) {
	text := cfg.server
	schemeless := !strings.Contains(text, "://")
	if schemeless {
		text = "https://" + text
	}
	server, err := url.Parse(text)
	if err != nil || server.Host == "" || server.Scheme != "https" && server.Scheme != "http" {
		return nil, fmt.Errorf("server %q: want https://HOST: %w", cfg.server, ErrInvalid)
	}
	config, err := tlsOf(cfg.table, cfg.dir)
	if err != nil {
		return nil, err
	}
	h := &host{
		registry: cfg.registry, server: server, mirror: cfg.mirror && server.Host != cfg.registry,
		overridePath: cfg.table.flag("override_path"), can: map[string]bool{}, header: http.Header{},
		mayBePlain: local(server.Host),
	}
	abilities := cfg.table.texts("capabilities")
	if len(abilities) == 0 {
		abilities = []string{canPull, canResolve, canPush}
	}
	for _, a := range abilities {
		h.can[a] = true
	}
	for k := range cfg.table.sub("header") {
		h.header[http.CanonicalHeaderKey(k)] = cfg.table.sub("header").texts(k)
	}
	if c.cfg.Transport != nil {
		h.direct, h.redirected = c.cfg.Transport, c.cfg.Transport
		return h, nil
	}
	h.direct, h.redirected = transports(config, local(server.Host))
	return h, nil
}

// bareCertificates are those of a directory without hosts.toml, as Docker has
// them: *.crt to believe, NAME.cert and NAME.key to show.
func bareCertificates(dir string) table {
	var cas, clients []any
	found, _ := filepath.Glob(filepath.Join(dir, "*.crt")) // the pattern is good
	for _, f := range found {
		cas = append(cas, f)
	}
	found, _ = filepath.Glob(filepath.Join(dir, "*.cert")) // as above
	for _, f := range found {
		clients = append(clients, []any{f, strings.TrimSuffix(f, ".cert") + ".key"})
	}
	return table{"ca": cas, "client": clients}
}

// tlsOf is the TLS configuration that ca, client and skip_verify describe.
func tlsOf(t table, dir string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.flag("skip_verify")} //nolint:gosec // only when its owner says so
	for _, file := range t.texts("ca") {
		raw, err := readLimited(below(dir, file))
		if err != nil {
			return nil, fmt.Errorf("certificate authority: %w", err)
		}
		if config.RootCAs == nil {
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				config.RootCAs = x509.NewCertPool()
			}
		}
		if !config.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("certificate authority %q: no certificate in it: %w", file, ErrInvalid)
		}
	}
	for _, pair := range t.pairs("client") {
		key := pair[1]
		if key == "" {
			key = pair[0]
		}
		cert, err := tls.LoadX509KeyPair(below(dir, pair[0]), below(dir, key))
		if err != nil {
			return nil, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = append(config.Certificates, cert)
	}
	return config, nil
}

func below(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// readLimited reads a small file.
func readLimited(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxHostsFile {
		return nil, fmt.Errorf("%s: more than %d bytes: %w", path, maxHostsFile, ErrTooLarge)
	}
	return os.ReadFile(path)
}
