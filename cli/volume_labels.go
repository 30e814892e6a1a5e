package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// maxLabels bounds what is read of a volume's labels, in bytes.
const maxLabels = 1 << 20

// labelled are labels that are written as docker's templates write them.
type labelled map[string]string

// String is NAME=VALUE of each, with commas between them.
func (l labelled) String() string {
	all := make([]string, 0, len(l))
	for _, name := range slices.Sorted(maps.Keys(l)) {
		all = append(all, name+"="+l[name])
	}
	return strings.Join(all, ",")
}

// Label is docker's {{.Label "NAME"}}.
func (v volumeView) Label(name string) string { return v.Labels[name] }

// volumeLabels is the file of a volume's labels, beside its directory: no volume has a
// name that begins with a dot.
func (s Settings) volumeLabels(name string) string {
	return filepath.Join(s.volumeDir(), "."+name+".labels")
}

// makeVolume makes a volume with labels, unless it is there.
func (s Settings) makeVolume(name string, labels map[string]string) error {
	dir, err := s.volume(name)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // whoever is in the container
		return err
	}
	err = os.Mkdir(dir, 0o755) //nolint:gosec // as above
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// One whose directory somebody has removed by hand has left its labels.
	if err := os.Remove(s.volumeLabels(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(labels) == 0 {
		return nil
	}
	raw, err := json.Marshal(labels)
	if err != nil {
		return err
	}
	if len(raw) > maxLabels {
		return errors.Join(fmt.Errorf("--label: %d bytes of labels: at most %d", len(raw), maxLabels), os.Remove(dir))
	}
	if err := atomicfile.Write(s.volumeLabels(name), raw, 0o600); err != nil {
		return errors.Join(err, s.dropVolume(name))
	}
	return nil
}

// readLabels reads such a file; there may be none.
func readLabels(path string) (labelled, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxLabels {
		return nil, fmt.Errorf("labels %q: no file of at most %d bytes", path, maxLabels)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all labelled
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("labels %q: %w", path, err)
	}
	return all, nil
}

// dropVolume removes a volume with its labels. They go last: what is left of an end half
// way is a volume that can be removed again.
func (s Settings) dropVolume(name string) error {
	if err := os.RemoveAll(filepath.Join(s.volumeDir(), name)); err != nil {
		return err
	}
	err := os.Remove(s.volumeLabels(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
