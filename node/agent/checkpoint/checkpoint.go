// Package checkpoint keeps what the agent must know again after its own end, or
// the machine's: who was given which devices, CPUs and claims. A file is replaced
// as a whole and is on the disk when Save returns; its checksum tells a file
// that the disk has spoilt from one that was written.
package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// ErrCorrupt says that a file isn't what was written.
var ErrCorrupt = errors.New("checkpoint is corrupt")

// maxSize bounds what is read.
const maxSize = 64 << 20

var table = crc32.MakeTable(crc32.Castagnoli)

type file struct {
	Data     json.RawMessage `json:"data"`
	Checksum uint32          `json:"checksum"`
}

// Save replaces path with v, durably. The directory is made if need be.
func Save(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("checkpoint %q: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("checkpoint %q: %w", path, err)
	}
	if err := atomicfile.WriteJSON(path, file{Data: data, Checksum: crc32.Checksum(data, table)}); err != nil {
		return fmt.Errorf("checkpoint %q: %w", path, err)
	}
	return nil
}

// Load reads what Save wrote. found is false when nothing was; then v is as it
// was. A file that can't be trusted is set aside as <path>.corrupt, and the error
// is ErrCorrupt: the caller begins anew and says so.
func Load(path string, v any) (found bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("checkpoint %q: %w", path, err)
	}
	if info.Size() > maxSize {
		return false, fmt.Errorf("checkpoint %q: larger than %d bytes", path, maxSize)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("checkpoint %q: %w", path, err)
	}
	var f file
	if err := json.Unmarshal(data, &f); err != nil {
		return false, aside(path, err)
	}
	if sum := crc32.Checksum(f.Data, table); sum != f.Checksum {
		return false, aside(path, fmt.Errorf("checksum is %d, want %d", sum, f.Checksum))
	}
	if err := json.Unmarshal(f.Data, v); err != nil {
		return false, aside(path, err)
	}
	return true, nil
}

func aside(path string, cause error) error {
	return errors.Join(fmt.Errorf("checkpoint %q: %w: %w", path, ErrCorrupt, cause), os.Rename(path, path+".corrupt"))
}
