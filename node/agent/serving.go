package agent

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"

	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// keyPair is a certificate of files, which are read again when they have changed
// (upstream's ReloadKubeletServerCertificateFile). now may be called from any goroutine.
type keyPair struct {
	cert, key string
	reload    bool
	log       *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	seen    [2]os.FileInfo // the files as they were read last
	told    string         // what was wrong with them
}

// openKeyPair reads both files; they must fit.
func openKeyPair(cert, key string, reload bool, log *slog.Logger) (*keyPair, error) {
	p := &keyPair{cert: cert, key: key, reload: reload, log: log}
	seen, err := p.stat()
	if err == nil {
		err = p.read(seen)
	}
	if err != nil {
		return nil, fmt.Errorf("agent: tlsCertFile and tlsPrivateKeyFile: %w", err)
	}
	return p, nil
}

// now is the certificate to show at this moment. While the files can't be used, or do
// not fit, as between the writing of one and of the other, it is that of before.
func (p *keyPair) now() *tls.Certificate {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reload {
		return p.current
	}
	seen, err := p.stat()
	if err == nil && unchanged(seen[0], p.seen[0]) && unchanged(seen[1], p.seen[1]) {
		return p.current
	}
	if err == nil {
		err = p.read(seen)
	}
	told := ""
	if err != nil {
		told = err.Error()
	}
	if told != "" && told != p.told {
		p.log.Error("the kubelet API's certificate can't be read; that of before is shown", "err", err)
	}
	p.told = told
	return p.current
}

func (p *keyPair) stat() (seen [2]os.FileInfo, err error) {
	for i, path := range []string{p.cert, p.key} {
		if seen[i], err = os.Stat(path); err != nil {
			return seen, err
		}
	}
	return seen, nil
}

func (p *keyPair) read(seen [2]os.FileInfo) error {
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		p.seen = [2]os.FileInfo{}
		return fmt.Errorf("load %q and %q: %w", p.cert, p.key, err)
	}
	p.current, p.seen = &pair, seen
	return nil
}

func unchanged(now, before os.FileInfo) bool {
	return before != nil && os.SameFile(now, before) && now.Size() == before.Size() && now.ModTime().Equal(before.ModTime())
}

// secure puts what the configuration says of TLS into c: the least version, suites,
// curves, and a certificate of files. That is shown to everybody but to the cluster's own
// parts, which trust the cluster's authority alone and say who they are (pki.Protocol):
// API servers, and nodes that fetch images.
func (cfg *Config) secure(k *settings.Kubelet) error {
	if cfg.TLS == nil {
		return nil
	}
	want, err := settings.ServerTLS(k)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	cfg.TLS = cfg.TLS.Clone()
	cfg.TLS.MinVersion, cfg.TLS.CipherSuites, cfg.TLS.CurvePreferences = want.MinVersion, want.Suites, want.Curves
	if k.TLSCertFile == "" {
		return nil
	}
	files, err := openKeyPair(k.TLSCertFile, k.TLSPrivateKeyFile, cfg.gates.On("ReloadKubeletServerCertificateFile"), cfg.Log)
	if err != nil {
		return err
	}
	ours, static := cfg.TLS.GetCertificate, cfg.TLS.Certificates
	cfg.TLS.Certificates = nil
	cfg.TLS.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		switch {
		case !slices.Contains(hello.SupportedProtos, pki.Protocol):
			return files.now(), nil
		case ours != nil:
			return ours(hello)
		case len(static) > 0:
			return &static[0], nil
		}
		return files.now(), nil
	}
	return nil
}
