package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// BackupPath is where the API server gives a copy of its store to its administrators.
const BackupPath = "/sampan/backup"

// What a backup is: a directory with the store, as etcd writes snapshots, and the keys.
const (
	BackupStore = "etcd.db"
	BackupKeys  = "pki"
)

// RestoreOptions say what is restored to where.
type RestoreOptions struct {
	Settings
	// From is a directory that sampan backup has made.
	From string
	// Out is told what has become of the former state.
	Out io.Writer
}

func backupCommand(s *Settings) *cobra.Command {
	return &cobra.Command{
		Use: "backup DIR", Short: "Copy the cluster's objects and keys to a new directory", Args: cobra.ExactArgs(1),
		Long: `Copy every object of the running cluster, and the keys without which nobody could
read its Secrets or speak for it, to a new directory: whoever has it has the cluster.
Images, logs and the contents of volumes are not in it. sampan restore reads it; the
objects alone, DIR/` + BackupStore + `, are a snapshot as etcd's tools take it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if os.Geteuid() != 0 {
				return errors.New("the keys belong to root: run this with sudo")
			}
			if err := os.Mkdir(args[0], 0o700); err != nil {
				return fmt.Errorf("a backup wants a directory of its own: %w", err)
			}
			if err := s.backup(cmd.Context(), args[0]); err != nil {
				return errors.Join(err, os.RemoveAll(args[0]))
			}
			return nil
		},
	}
}

func restoreCommand(p Program, s *Settings) *cobra.Command {
	return &cobra.Command{
		Use: "restore DIR", Short: "Take the cluster back to a backup", Args: cobra.ExactArgs(1),
		Long: `Put the objects and keys of a backup in the place of those in --data-dir, which are
kept beside them. Sampan must not run; containers may, and those that the backup knows
run on when it starts again.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			lock, err := takeLock(s.DataDir)
			if err != nil {
				return err
			}
			defer lock.Close()
			return p.Restore(cmd.Context(), RestoreOptions{Settings: *s, From: args[0], Out: cmd.OutOrStdout()})
		},
	}
}

// backup fills a new directory.
func (s *Settings) backup(ctx context.Context, dir string) error {
	server, err := s.connect()
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, server.records.URL+BackupPath, nil)
	if err != nil {
		return err
	}
	answer, err := server.records.Client.Do(r)
	if err != nil {
		return fmt.Errorf("ask the API server: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10)) // what there is of it
		return fmt.Errorf("the API server refuses: %s: %s", answer.Status, bytes.TrimSpace(said))
	}
	if err := keepStore(filepath.Join(dir, BackupStore), answer.Body); err != nil {
		return fmt.Errorf("back up the store: %w", err)
	}
	if err := CopyKeys(filepath.Join(s.DataDir, "pki"), filepath.Join(dir, BackupKeys)); err != nil {
		return fmt.Errorf("back up the keys: %w", err)
	}
	return atomicfile.SyncDir(dir)
}

// keepStore writes what the server sends, whose last bytes are the checksum of the rest.
func keepStore(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, from)
	if err != nil {
		return err
	}
	sum, said := sha256.New(), make([]byte, sha256.Size)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(sum, f, n-sha256.Size); err != nil {
		return errors.New("the server's answer was cut short")
	}
	if _, err := io.ReadFull(f, said); err != nil || !bytes.Equal(sum.Sum(nil), said) {
		return errors.New("the server's answer was cut short")
	}
	return f.Sync()
}

// CopyKeys copies a directory of keys to a new one; nobody else may read either.
func CopyKeys(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return atomicfile.Write(filepath.Join(to, name), raw, 0o600)
	})
}
