package keyring

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// filesFor is how long the node's files are believed without a look at them.
const filesFor = 5 * time.Minute

// maxFile bounds a file of credentials, in bytes.
const maxFile = 1 << 20

// Files are the node's own credentials: those that all its pods have. Its methods
// may be called from any goroutine.
type Files struct {
	paths []string

	mu    sync.Mutex
	ring  Ring
	until time.Time
}

// NodeFiles are those that the kubelet reads: config.json in its own directory, in
// the .docker directory of a home and in that of the root directory, and then
// .dockercfg in the three. The first that can be read counts, alone. Where the
// kubelet also looks in the directory that it was started in, nothing is read: a
// person starts a cluster anywhere.
func NodeFiles(kubelet, home string) *Files {
	var paths []string
	for _, dir := range []string{kubelet, dot(home), "/.docker"} {
		paths = append(paths, at(dir, "config.json"))
	}
	for _, dir := range []string{kubelet, home, "/"} {
		paths = append(paths, at(dir, ".dockercfg"))
	}
	return &Files{paths: paths}
}

func dot(home string) string { return at(home, ".docker") }

func at(dir, name string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, name)
}

// Find returns the keys that fit a repository.
func (f *Files) Find(repository string) []Key {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := time.Now(); !now.Before(f.until) {
		f.ring, f.until = Ring{}, now.Add(filesFor)
		f.ring.Add(Source{}, f.read())
	}
	return f.ring.Find(repository)
}

// read returns what the first good file has.
func (f *Files) read() Entries {
	for _, path := range f.paths {
		if path == "" {
			continue
		}
		raw, err := readFile(path)
		if err != nil {
			continue
		}
		parse := Parse
		if filepath.Base(path) == ".dockercfg" {
			parse = ParseOld
		}
		if entries, err := parse(raw); err == nil {
			return entries
		}
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	raw, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%q is larger than %d bytes", path, maxFile)
	}
	return raw, err
}
