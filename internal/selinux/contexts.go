package selinux

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Contexts are what the host's policy calls containers by, before their level.
type Contexts struct {
	// Process is what a container's processes run as, File what its files are.
	Process, File Label
}

// Where policies say what containers are called.
const (
	// preferred is where the policy of containers itself says so.
	preferred = "/usr/share/containers/selinux/contexts"
	config    = "/etc/selinux/config"
	policies  = "/etc/selinux"
	inPolicy  = "contexts/lxc_contexts"
)

// maxFile bounds what is read of such a file.
const maxFile = 64 << 10

// ReadContexts finds out what the host's policy calls containers; zero where the policy
// has no word for them.
func ReadContexts() (Contexts, error) {
	for _, name := range []string{preferred, filepath.Join(policies, policy(), inPolicy)} {
		c, err := readContexts(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return Contexts{}, fmt.Errorf("SELinux contexts of containers in %q: %w", name, err)
		}
		return c, nil
	}
	return Contexts{}, nil
}

func readContexts(name string) (Contexts, error) {
	f, err := os.Open(name)
	if err != nil {
		return Contexts{}, err
	}
	defer f.Close()
	return contexts(f)
}

// policy is the name of the policy that the host has loaded.
func policy() string {
	const usual = "targeted"
	f, err := os.Open(config)
	if err != nil {
		return usual
	}
	defer f.Close()
	values, err := assignments(f)
	name := values["SELINUXTYPE"]
	if err != nil || name == "" || filepath.Base(name) != name {
		return usual
	}
	return name
}

func contexts(r io.Reader) (Contexts, error) {
	values, err := assignments(r)
	if err != nil {
		return Contexts{}, err
	}
	var c Contexts
	for key, to := range map[string]*Label{"process": &c.Process, "file": &c.File} {
		if values[key] == "" {
			return Contexts{}, nil // no word for containers
		}
		if *to, err = Parse(values[key]); err != nil {
			return Contexts{}, err
		}
	}
	return c, nil
}

// assignments reads lines of key = value, whose value may stand in quotes.
func assignments(r io.Reader) (map[string]string, error) {
	out := map[string]string{}
	lines := bufio.NewScanner(io.LimitReader(r, maxFile))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), "=")
		if key = strings.TrimSpace(key); !ok || strings.HasPrefix(key, "#") {
			continue
		}
		out[key] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	return out, lines.Err()
}
