package pki

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/internal/clock"
)

func TestAuthorityIsMadeOnceAndKept(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first, err := Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if first.Hash() != second.Hash() {
		t.Error("the second Open made another authority")
	}
	for name, want := range map[string]os.FileMode{"": 0o700, "ca.key": 0o600, "ca.crt": 0o600} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %q is %04o, want %04o", name, got, want)
		}
	}
}

func TestOpenRefusesWhatIsNotSafe(t *testing.T) {
	cases := map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"key readable by others": {func(t *testing.T, dir string) { must(t, os.Chmod(filepath.Join(dir, "ca.key"), 0o644)) }, "readable by others"},
		"key lost":               {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "ca.key"))) }, "no key"},
		"certificate lost":       {func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, "ca.crt"))) }, "no such file"},
		"another's key": {func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "ca.key")))
			_, err := OpenTokenKey(filepath.Join(dir, "ca.key"))
			must(t, err)
		}, "do not belong together"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := Open(dir, time.Now); err != nil {
				t.Fatal(err)
			}
			c.spoil(t, dir)
			if _, err := Open(dir, time.Now); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open: %v, want an error with %q", err, c.want)
			}
		})
	}
}

// A key of tokens that is gone, or is another, is not replaced in silence; who removes the
// print of it too gets a new one.
func TestLostTokenKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "service-account.key")
	first, err := OpenTokenKey(path)
	must(t, err)
	again, err := OpenTokenKey(path)
	must(t, err)
	if again.ID != first.ID {
		t.Errorf("the key is %q, and was %q", again.ID, first.ID)
	}
	kept, err := os.ReadFile(path)
	must(t, err)
	for name, spoil := range map[string]func() error{
		"gone":    func() error { return os.Remove(path) },
		"damaged": func() error { return os.WriteFile(path, []byte("-----BEGIN"), 0o600) },
		"another": func() error {
			_, err := createTokenKey(path)
			return err
		},
	} {
		must(t, spoil())
		if _, err := OpenTokenKey(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "backup, or remove") {
			t.Errorf("%s: %v", name, err)
		}
		must(t, os.WriteFile(path, kept, 0o600))
	}
	must(t, os.Remove(path))
	must(t, os.Remove(strings.TrimSuffix(path, ".key")+".print"))
	fresh, err := OpenTokenKey(path)
	must(t, err)
	if fresh.ID == first.ID {
		t.Error("the new key is the old one")
	}
}

// A client and a server that trust only the authority shake hands, and each sees
// the other's name; a server leaf does not pass as a client's.
func TestHandshake(t *testing.T) {
	ca, err := Open(t.TempDir(), time.Now)
	must(t, err)
	server, err := ca.Hold(ServerLeaf("cluster.local", []string{"10.96.0.1", "host.example"}))
	must(t, err)
	client, err := ca.Hold(Leaf{CommonName: "alice", Organizations: []string{"crew"}, Client: true})
	must(t, err)

	for _, name := range []string{"kubernetes.default.svc.cluster.local", "10.96.0.1", "127.0.0.1", "host.example"} {
		state, err := shake(ca, server, client, name)
		if err != nil {
			t.Fatalf("handshake with %q: %v", name, err)
		}
		if got := state.PeerCertificates[0].Subject; got.CommonName != "alice" || got.Organization[0] != "crew" {
			t.Errorf("the server sees %v", got)
		}
	}
	if _, err := shake(ca, server, client, "elsewhere.example"); err == nil {
		t.Error("a name that is not the server's was accepted")
	}
	if _, err := shake(ca, server, server, "localhost"); err == nil {
		t.Error("a server's leaf was accepted as a client's")
	}
}

func shake(ca *Authority, server, client *Holder, name string) (tls.ConnectionState, error) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	srv := tls.Server(a, &tls.Config{GetCertificate: server.GetCertificate, ClientCAs: ca.Pool(), ClientAuth: tls.RequireAndVerifyClientCert})
	cli := tls.Client(b, &tls.Config{GetClientCertificate: client.GetClientCertificate, RootCAs: ca.Pool(), ServerName: name})
	failed := make(chan error, 1)
	go func() {
		err := cli.Handshake()
		if err != nil {
			b.Close()
		}
		failed <- err
		_, _ = io.Copy(io.Discard, cli)
	}()
	err := srv.Handshake()
	if err != nil {
		a.Close()
	}
	if cliErr := <-failed; cliErr != nil {
		err = cliErr
	}
	return srv.ConnectionState(), err
}

func TestHolderRenewsBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := Open(t.TempDir(), time.Now)
		must(t, err)
		h, err := ca.Hold(Leaf{CommonName: "n1", Client: true})
		must(t, err)
		go func() { _ = h.Run(t.Context(), slog.New(slog.DiscardHandler), nil) }()
		serials := map[string]bool{}
		for range 30 {
			leaf := h.Leaf().Leaf
			serials[leaf.SerialNumber.String()] = true
			if left := time.Until(leaf.NotAfter); left < 24*time.Hour {
				t.Fatalf("only %s left of the leaf", left)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), CurrentTime: time.Now().Add(-4 * time.Minute), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Fatalf("a clock that is 4 minutes slow refuses the leaf: %v", err)
			}
			time.Sleep(24 * time.Hour)
			synctest.Wait()
		}
		if len(serials) < 5 {
			t.Errorf("%d leaves in 30 days, want at least 5", len(serials))
		}
	})
}

// When the clock jumps a leaf that has ended, and one that is not valid yet, are replaced.
func TestHolderFollowsTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		ca, err := Open(t.TempDir(), time.Now)
		must(t, err)
		ca.now = now
		h, err := ca.Hold(Leaf{CommonName: "n1", Client: true})
		must(t, err)
		jumps := &clock.Jumps{}
		go func() { _ = h.Run(clock.With(t.Context(), jumps), slog.New(slog.DiscardHandler), nil) }()
		synctest.Wait()
		for _, jump := range []time.Duration{400 * 24 * time.Hour, 0, 2 * time.Hour, 0, -300 * 24 * time.Hour} {
			before := h.Leaf().Leaf
			ahead.Store(int64(jump))
			jumps.Tell()
			time.Sleep(2 * time.Second)
			leaf := h.Leaf().Leaf
			if now().Before(leaf.NotBefore) || now().After(leaf.NotAfter) {
				t.Errorf("%v ahead the leaf is that from %v to %v", jump, leaf.NotBefore, leaf.NotAfter)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool(), CurrentTime: now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
				t.Errorf("%v ahead: %v", jump, err)
			}
			if jump == 2*time.Hour && leaf.SerialNumber.Cmp(before.SerialNumber) != 0 {
				t.Error("a leaf that is good was replaced")
			}
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
