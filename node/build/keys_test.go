package build

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Keys in files make an agent that signs, and whose keys nobody changes.
func TestServeKeys(t *testing.T) {
	dir := t.TempDir()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, block *pem.Block, err error) string {
		t.Helper()
		at := filepath.Join(dir, name)
		if err == nil {
			err = os.WriteFile(at, pem.EncodeToMemory(block), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	plain, err := ssh.MarshalPrivateKey(private, "")
	good := write("key", plain, err)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("phrase"))
	closed := write("locked", locked, err)

	socket, end, err := ServeKeys([]string{good})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := agent.NewClient(conn)
	list, err := client.List()
	if err != nil || len(list) != 1 || list[0].Comment != "key" {
		t.Fatalf("keys %v, %v", list, err)
	}
	of, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := client.Sign(of, []byte("data"))
	if err != nil || of.Verify([]byte("data"), signed) != nil {
		t.Errorf("signature: %v", err)
	}
	if client.RemoveAll() == nil || client.Lock([]byte("x")) == nil || client.Remove(of) == nil {
		t.Error("the keys can be changed")
	}
	if err := end(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
	for file, want := range map[string]string{closed: "has a passphrase", filepath.Join(dir, "none"): "no such file", write("odd", &pem.Block{Type: "ODD"}, nil): "odd"} {
		if _, _, err := ServeKeys([]string{file}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", file, err, want)
		}
	}
}
