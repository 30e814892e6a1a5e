package spec

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// maxEnvFile is how much of a file of variables is read.
const maxEnvFile = 1 << 20

// errEnvFile is upstream's text for a file that can't be used. Beyond it a pod's status
// tells at most which line is at fault: what is in it is nobody else's.
var errEnvFile = errors.New("couldn't parse env file")

// fileKey is a variable out of a file in a volume of the pod's (KEP-3721). An optional
// one may also lack its file, as the API says; upstream's kubelet wants the file.
func (e *Environment) fileKey(ref *corev1.FileKeySelector) (string, bool, error) {
	dir, ok := e.Paths[ref.VolumeName]
	if !ok {
		return "", false, fmt.Errorf("cannot find the volume %q referenced by FileKeyRef", ref.VolumeName)
	}
	text, err := readWithin(dir, ref.Path)
	if errors.Is(err, fs.ErrNotExist) && isTrue(ref.Optional) {
		return "", false, nil
	}
	if err != nil {
		return "", false, errEnvFile
	}
	value, err := FromEnvFile(text, ref.Key)
	switch {
	case err != nil:
		return "", false, fmt.Errorf("%w: %w", errEnvFile, err)
	case value == "" && !isTrue(ref.Optional):
		return "", false, fmt.Errorf("environment variable key %q not found in file %q", ref.Key, ref.Path)
	}
	return value, value != "", nil
}

// readWithin reads a file that a container has written: one that leads out of dir, or is
// none, is refused, and nothing of it is waited for.
func readWithin(dir, path string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "", errors.Join(err, fmt.Errorf("%q is not a regular file", path))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxEnvFile+1))
	if len(data) > maxEnvFile {
		err = fmt.Errorf("%q is longer than %d bytes", path, maxEnvFile)
	}
	return string(data), err
}

// FromEnvFile is the value of a variable in the text of a file, "" when it has none. Lines
// are NAME='value', where the value may go on for several lines and has no escapes; what
// follows # where a name or the end of a line could be is a comment. What comes after the
// variable is not judged.
func FromEnvFile(text, key string) (string, error) {
	for n := 1; text != ""; {
		line, rest, _ := strings.Cut(text, "\n")
		line = strings.TrimLeft(strings.TrimSuffix(line, "\r"), " \t")
		if line == "" || line[0] == '#' {
			text, n = rest, n+1
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return "", fmt.Errorf("line %d: missing '='", n)
		case strings.Trim(name, " \t") == "":
			return "", fmt.Errorf("line %d: empty variable name", n)
		case strings.TrimRight(name, " \t") != name:
			return "", fmt.Errorf("line %d: whitespace before '=' is not allowed", n)
		case value == "" || (value[0] != '\'' && value[0] != ' ' && value[0] != '\t'):
			return "", fmt.Errorf("line %d: value must be enclosed in single quotes", n)
		case value[0] != '\'': // a shell, too, takes it for an empty value
			if name == key {
				return "", nil
			}
			text, n = rest, n+1
			continue
		}
		_, quoted, _ := strings.Cut(text, "='")
		value, after, closed := strings.Cut(quoted, "'")
		if !closed {
			return "", fmt.Errorf("line %d: unclosed single quote", n)
		}
		after, text, _ = strings.Cut(after, "\n")
		if after = strings.Trim(after, " \t\r"); after != "" && after[0] != '#' {
			return "", fmt.Errorf("line %d: unexpected content after closing quote", n+strings.Count(value, "\n"))
		}
		if name == key {
			return value, nil
		}
		n += strings.Count(value, "\n") + 1
	}
	return "", nil
}
