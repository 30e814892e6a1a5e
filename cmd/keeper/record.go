package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/sampan-dev/sampan/node/container/plan"
)

// record writes an exit so that it survives a power cut: into a new file, to the
// disk, under its name, and the name to the disk.
func record(path string, e plan.Exit) error {
	if path == "" {
		return nil
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	f.Close()
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
