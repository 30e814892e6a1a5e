package build

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of keys that are given as files.
const (
	maxKey  = 64 << 10
	maxKeys = 32
)

// errKept refuses a RUN what would change the keys.
var errKept = errors.New("the keys of a build are not changed")

// keyring is an SSH agent that has some keys, and lets a RUN sign with them alone.
type keyring struct{ agent.Agent }

// Add implements agent.Agent.
func (keyring) Add(agent.AddedKey) error { return errKept }

// Remove implements agent.Agent.
func (keyring) Remove(ssh.PublicKey) error { return errKept }

// RemoveAll implements agent.Agent.
func (keyring) RemoveAll() error { return errKept }

// Lock implements agent.Agent.
func (keyring) Lock([]byte) error { return errKept }

// Unlock implements agent.Agent.
func (keyring) Unlock([]byte) error { return errKept }

// ServeKeys is an SSH agent over private keys in files. It returns its socket, which only
// this process's user can reach, and what ends it.
func ServeKeys(files []string) (socket string, end func() error, err error) {
	if len(files) > maxKeys {
		return "", nil, fmt.Errorf("%d keys, at most %d: %w", len(files), maxKeys, image.ErrTooLarge)
	}
	keys := agent.NewKeyring()
	for _, file := range files {
		key, err := readKey(file)
		if err != nil {
			return "", nil, err
		}
		if err := keys.Add(agent.AddedKey{PrivateKey: key, Comment: filepath.Base(file)}); err != nil {
			return "", nil, fmt.Errorf("key %q: %w: %w", file, image.ErrInvalid, err)
		}
	}
	dir, err := os.MkdirTemp("", "sampan-keys-*")
	if err != nil {
		return "", nil, err
	}
	socket = filepath.Join(dir, "s")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	go serveKeys(listener, keyring{keys})
	return socket, func() error { return errors.Join(listener.Close(), os.RemoveAll(dir)) }, nil
}

// readKey reads a private key as ssh-keygen writes it.
func readKey(file string) (any, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err == nil && len(raw) > maxKey {
		err = fmt.Errorf("more than %d bytes: %w", maxKey, image.ErrTooLarge)
	}
	if err != nil {
		return nil, fmt.Errorf("key %q: %w", file, err)
	}
	key, err := ssh.ParseRawPrivateKey(raw)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("key %q has a passphrase: load it into an agent with ssh-add, and give that: %w", file, ErrUnsupported)
	}
	if err != nil {
		return nil, fmt.Errorf("key %q: %w: %w", file, image.ErrInvalid, err)
	}
	return key, nil
}

// serveKeys answers until the listener closes.
func serveKeys(listener net.Listener, keys agent.Agent) {
	slots := make(chan struct{}, maxAgentConnections)
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer conn.Close()
			_ = agent.ServeAgent(keys, conn) // it ends as the caller does
		}()
	}
}
