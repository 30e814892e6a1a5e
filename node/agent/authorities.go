package agent

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// authorities are those of who may show a certificate to the kubelet API: the cluster's,
// and those of a file, which is read again when it has changed (upstream's
// ReloadKubeletClientCAFile). now may be called from any goroutine.
type authorities struct {
	given *x509.CertPool
	file  string
	// once: the file is not read again.
	once bool
	log  *slog.Logger

	mu   sync.Mutex
	all  *x509.CertPool
	seen os.FileInfo // the file as it was read last
	told string      // what was wrong with it
}

// admit makes the authorities of a configuration; with no file those that are given.
func (cfg *Config) admit(file string) error {
	cfg.callers = &authorities{given: cfg.ClientCAs, file: file, once: !cfg.gates.On("ReloadKubeletClientCAFile"), log: cfg.Log, all: cfg.ClientCAs}
	if file == "" {
		return nil
	}
	info, err := os.Stat(file)
	if err == nil {
		err = cfg.callers.read(info)
	}
	if err != nil {
		return fmt.Errorf("agent: authentication.x509.clientCAFile: %w", err)
	}
	return nil
}

// now is who counts at this moment, nil for nobody. While the file can't be used those
// of before count.
func (a *authorities) now() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.file == "" || a.once {
		return a.all
	}
	info, err := os.Stat(a.file)
	if err == nil && !unchanged(info, a.seen) {
		err = a.read(info)
	} else if err == nil {
		return a.all
	}
	told := ""
	if err != nil {
		told = err.Error()
	}
	if told != "" && told != a.told {
		a.log.Error("the authorities of the kubelet API's clients can't be read; those of before count", "err", err)
	}
	a.told = told
	return a.all
}

// read takes over what is in the file.
func (a *authorities) read(info os.FileInfo) error {
	a.seen = info
	raw, err := os.ReadFile(a.file)
	if err != nil {
		a.seen = nil
		return err
	}
	all := x509.NewCertPool()
	if a.given != nil {
		all = a.given.Clone()
	}
	if !all.AppendCertsFromPEM(raw) {
		return fmt.Errorf("%q has no certificates", a.file)
	}
	a.all = all
	return nil
}

// ask has clients asked for certificates of those who count at that moment: one that is
// told other authorities than its own shows none.
func (a *authorities) ask(c *tls.Config) *tls.Config {
	if a.file == "" {
		return c
	}
	asks := c.Clone()
	asks.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := c.Clone()
		now.ClientCAs = a.now()
		return now, nil
	}
	return asks
}
