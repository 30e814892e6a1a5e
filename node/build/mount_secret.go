package build

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// secretID is the name of a secret: its id, else its source, else the target's
// last part.
func secretID(m *instructions.Mount) string {
	switch {
	case m.CacheID != "":
		return m.CacheID
	case m.Source != "":
		return m.Source
	}
	return path.Base(m.Target)
}

// secret shows a RUN a secret, from memory and nowhere else.
func (b *builder) secret(st *stage, all *mounted, m *instructions.Mount, at string) error {
	id := secretID(m)
	given, ok := b.opts.Secrets[id]
	if !ok {
		if m.Required {
			return fmt.Errorf("the secret %q is required: give it with --secret id=%s,src=FILE: %w", id, id, image.ErrNotFound)
		}
		return nil
	}
	value, err := given.read(id)
	if err != nil {
		return err
	}
	if m.Env != nil {
		name := *m.Env
		if name == "" {
			name = id
		}
		all.env = append(all.env, name+"="+string(value))
		if m.Target == "" {
			return nil
		}
	}
	if err := all.memory(at); err != nil {
		return err
	}
	file := filepath.Join(at, "secret")
	if err := os.WriteFile(file, value, 0o600); err != nil {
		return err
	}
	mode := os.FileMode(0o400)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if err := errors.Join(os.Chown(file, id32(m.UID), id32(m.GID)), os.Chmod(file, mode)); err != nil {
		return err
	}
	target := m.Target
	if target == "" {
		target = "/run/secrets/" + id
	}
	all.mounts = append(all.mounts, Mount{Source: file, Target: st.resolve(target), ReadOnly: true})
	return nil
}

// read gives a secret's value.
func (s Secret) read(id string) ([]byte, error) {
	if s.File == "" {
		return s.Value, nil
	}
	f, err := os.Open(s.File)
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", id, err)
	}
	defer f.Close()
	value, err := io.ReadAll(io.LimitReader(f, MaxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("secret %q: %w", id, err)
	}
	if len(value) > MaxSecret {
		return nil, fmt.Errorf("secret %q: more than %d bytes: %w", id, MaxSecret, image.ErrTooLarge)
	}
	return value, nil
}

// memory mounts a small tmpfs at a directory: its content never meets a disk.
func (m *mounted) memory(at string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0700,size=2m"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	m.undo = append(m.undo, func() error { return unix.Unmount(at, unix.MNT_DETACH) })
	return nil
}

// agent shows a RUN an SSH agent: a socket of its own, with the owner and mode
// that it asks for, before the person's.
func (b *builder) agent(st *stage, all *mounted, m *instructions.Mount, at string) error {
	id := m.CacheID
	if id == "" {
		id = "default"
	}
	agent, ok := b.opts.Agents[id]
	if !ok {
		if m.Required {
			return fmt.Errorf("the SSH agent %q is required: give it with --ssh %s: %w", id, id, image.ErrNotFound)
		}
		return nil
	}
	if err := all.memory(at); err != nil {
		return err
	}
	socket := filepath.Join(at, "s")
	listener, err := listenShort(socket)
	if err != nil {
		return fmt.Errorf("SSH agent: %w", err)
	}
	all.undo = append(all.undo, listener.Close)
	mode := os.FileMode(0o600)
	if m.Mode != nil {
		mode = os.FileMode(*m.Mode & 0o777)
	}
	if err := errors.Join(os.Chown(socket, id32(m.UID), id32(m.GID)), os.Chmod(socket, mode)); err != nil {
		return err
	}
	go relay(listener, agent)
	target := m.Target
	if target == "" {
		target = fmt.Sprintf("/run/buildkit/ssh_agent.%d", len(all.mounts))
	}
	all.mounts = append(all.mounts, Mount{Source: socket, Target: st.resolve(target)})
	if !slices.ContainsFunc(all.env, func(kv string) bool { return strings.HasPrefix(kv, "SSH_AUTH_SOCK=") }) {
		all.env = append(all.env, "SSH_AUTH_SOCK="+st.resolve(target))
	}
	return nil
}

// listenShort listens at a socket whose path may be longer than the kernel takes.
func listenShort(path string) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	listener, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
	if unixListener, ok := listener.(*net.UnixListener); ok {
		unixListener.SetUnlinkOnClose(false)
	}
	return listener, err
}

// maxAgentConnections bounds those of one RUN at a time.
const maxAgentConnections = 16

// relay joins every connection with one to the agent, until the listener closes.
func relay(listener net.Listener, agent string) {
	slots := make(chan struct{}, maxAgentConnections)
	for {
		from, err := listener.Accept()
		if err != nil {
			return
		}
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			defer from.Close()
			to, err := net.Dial("unix", agent)
			if err != nil {
				return // the caller sees its connection close
			}
			defer to.Close()
			go func() {
				_, _ = io.Copy(to, from) // as above
				to.Close()
			}()
			_, _ = io.Copy(from, to) // as above
		}()
	}
}
