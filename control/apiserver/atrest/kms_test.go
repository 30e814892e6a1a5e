package atrest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kmsv2 "k8s.io/kms/apis/v2"

	"github.com/sampan-dev/sampan/internal/seal"
)

// A test binary with this variable set is a KMS plugin on the socket that it names.
const pluginSocket = "SAMPAN_TEST_KMS_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(pluginSocket); socket != "" {
		fmt.Fprintln(os.Stderr, servePlugin(socket))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// testPlugin is a KMS with a key for each id; the id in use is in a file, and what
// it says of its health, if anything, after a space.
type testPlugin struct {
	kmsv2.UnimplementedKeyManagementServiceServer
	file string
}

func servePlugin(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	kmsv2.RegisterKeyManagementServiceServer(s, &testPlugin{file: socket + ".key"})
	return s.Serve(l)
}

func (p *testPlugin) now() (id, health string) {
	raw, err := os.ReadFile(p.file)
	if err != nil {
		return "", err.Error()
	}
	id, health, _ = strings.Cut(string(raw), " ")
	if health == "" {
		health = "ok"
	}
	return id, health
}

func cipherOf(id string) seal.Cipher {
	key := sha256.Sum256([]byte(id))
	c, err := seal.GCM(key[:])
	if err != nil {
		panic(err)
	}
	return c
}

func (p *testPlugin) Status(context.Context, *kmsv2.StatusRequest) (*kmsv2.StatusResponse, error) {
	id, health := p.now()
	return &kmsv2.StatusResponse{Version: "v2", Healthz: health, KeyId: id}, nil
}

func (p *testPlugin) Encrypt(_ context.Context, r *kmsv2.EncryptRequest) (*kmsv2.EncryptResponse, error) {
	id, _ := p.now()
	out, err := cipherOf(id).Seal("", r.Plaintext)
	return &kmsv2.EncryptResponse{Ciphertext: out, KeyId: id, Annotations: map[string][]byte{"version.example.com": []byte("1")}}, err
}

func (p *testPlugin) Decrypt(_ context.Context, r *kmsv2.DecryptRequest) (*kmsv2.DecryptResponse, error) {
	if string(r.Annotations["version.example.com"]) != "1" {
		return nil, fmt.Errorf("annotations %v", r.Annotations)
	}
	out, err := cipherOf(r.KeyId).Open("", r.Ciphertext)
	return &kmsv2.DecryptResponse{Plaintext: out}, err
}

// startPlugin starts a plugin process and returns its socket and how to end it.
func startPlugin(t *testing.T, socket string) (stop func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), pluginSocket+"="+socket)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.Remove(socket)
	}
	t.Cleanup(stop)
	return stop
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fresh makes p forget that it has just asked.
func (k *Keeper) fresh() {
	for _, p := range k.now.Load().plugins {
		p.checking.Lock()
		p.checked = time.Time{}
		p.checking.Unlock()
	}
}

func TestKMS(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "kms.sock")
	write(t, socket+".key", "one")
	stop := startPlugin(t, socket)
	file := filepath.Join(dir, "config.yaml")
	write(t, file, `{apiVersion: apiserver.config.k8s.io/v1, kind: EncryptionConfiguration, resources: [{resources: [secrets],
  providers: [{kms: {apiVersion: v2, name: hsm, timeout: 1m, endpoint: "unix://`+socket+`"}}, {identity: {}}]}]}`)
	k, err := OpenKeeper(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.now.Load().close() })
	k.fresh()
	if err := k.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	secrets := k.For(schema.GroupResource{Resource: "secrets"})
	const place = "/registry/secrets/default/a"
	first, err := secrets.Seal(place, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(first, []byte("k8s:enc:kms:v2:hsm:")) || bytes.Contains(first, []byte("plain")) || !bytes.Contains(first, []byte("one")) {
		t.Errorf("sealed: %q", first)
	}
	opens := func(what string, by *Kept, sealed []byte, wantStale bool) {
		t.Helper()
		plain, stale, err := by.Open(place, sealed)
		if err != nil || string(plain) != "plain" || stale != wantStale {
			t.Errorf("%s: %q, stale %v, %v", what, plain, stale, err)
		}
	}
	opens("at once", secrets, first, false)
	opens("never sealed", secrets, []byte("plain"), true)
	if _, _, err := secrets.Open(place+"x", first); err == nil {
		t.Error("opens at another place")
	}

	// Another server asks the plugin for the seed.
	other, err := OpenKeeper(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.now.Load().close() })
	opens("by another server", other.For(schema.GroupResource{Resource: "secrets"}), first, false)

	// The plugin's key changes: what was sealed is stale.
	write(t, socket+".key", "two")
	k.fresh()
	if err := k.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	opens("after a change of key", secrets, first, true)
	second, err := secrets.Seal(place, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	opens("with the new key", secrets, second, false)

	// A sick plugin is told of; the seed goes on for a while.
	write(t, socket+".key", "two broken HSM")
	k.fresh()
	if err := k.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "got unexpected healthz status: broken HSM") {
		t.Errorf("health: %v", err)
	}
	stop()
	if _, err := secrets.Seal(place, []byte("plain")); err != nil {
		t.Errorf("seal while the plugin is away: %v", err)
	}
	opens("while the plugin is away", secrets, first, true)
	p := k.now.Load().plugins[0]
	p.mu.Lock()
	p.until = time.Now().Add(-time.Second)
	p.mu.Unlock()
	if _, err := secrets.Seal(place, []byte("plain")); err == nil {
		t.Error("seals with a seed that nobody vouches for")
	}
	startPlugin(t, socket)
	write(t, socket+".key", "two")
	// A first question may still go into the connection to the plugin that has gone.
	for begin := time.Now(); ; {
		k.fresh()
		err := k.Check(t.Context())
		if err == nil {
			break
		}
		if time.Since(begin) > time.Minute {
			t.Fatalf("after the plugin's return: %v", err)
		}
	}
	if _, err := secrets.Seal(place, []byte("plain")); err != nil {
		t.Errorf("seal after the plugin's return: %v", err)
	}
}

func FuzzEnvelope(f *testing.F) {
	e := envelope{data: []byte("data"), keyID: "id", source: []byte("source"), notes: map[string][]byte{"a.b": []byte("c")}, seeded: true}
	f.Add(e.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := decode(raw)
		if err != nil {
			return
		}
		again, err := decode(e.encode())
		if err != nil || again.id() != e.id() || !bytes.Equal(again.data, e.data) {
			t.Errorf("%q is read otherwise when written: %v", raw, err)
		}
	})
}
