package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/cli"
	"github.com/sampan-dev/sampan/control/store/etcd"
	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/pki"
)

// serveBackup gives a copy of the embedded store to whoever may have all of it.
func (c *cluster) serveBackup(w http.ResponseWriter, r *http.Request) {
	if c.embedded == nil {
		http.Error(w, "the store is an etcd of its own: back it up with etcdctl", http.StatusNotImplemented)
		return
	}
	if r.Method != http.MethodGet {
		http.Error(w, "want GET", http.StatusMethodNotAllowed)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if err := c.embedded.Backup(r.Context(), w); err != nil { // the checksum, at the end, is missing then
		c.log.Warn("the backup was not sent to its end", "error", err)
	}
}

// restore puts a backup in the place of the state. All that can fail is made beside it
// before anything is exchanged.
func restore(ctx context.Context, o cli.RestoreOptions) error {
	if _, err := os.Stat(membershipFile(o.Settings)); err == nil {
		return errors.New("this machine is a node of another's cluster, and has no objects of its own")
	}
	keys := filepath.Join(o.From, cli.BackupKeys)
	_, err := pki.ReadKey(filepath.Join(keys, "ca.key")) // Open would make what is not there
	if err == nil {
		_, err = pki.Open(keys, time.Now)
	}
	if err != nil {
		return fmt.Errorf("%q is no backup: %w", o.From, err)
	}
	stamp := time.Now().UTC().Format("20060102-150405")
	made := map[string]string{}
	for _, name := range []string{"pki", "etcd"} {
		made[name] = filepath.Join(o.DataDir, name+".before-"+stamp)
	}
	discard := func(err error) error {
		return errors.Join(err, os.RemoveAll(made["pki"]), os.RemoveAll(made["etcd"]))
	}
	if err := cli.CopyKeys(keys, made["pki"]); err != nil {
		return discard(fmt.Errorf("restore the keys: %w", err))
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := etcd.Restore(ctx, etcd.EmbedConfig{Dir: made["etcd"], Log: log}, filepath.Join(o.From, cli.BackupStore)); err != nil {
		return discard(err)
	}
	for _, name := range []string{"pki", "etcd"} {
		former, err := swap(made[name], filepath.Join(o.DataDir, name))
		if err != nil {
			return fmt.Errorf("put the backup in its place: %w", err)
		}
		if former {
			fmt.Fprintf(o.Out, "the former %s is now %s\n", name, made[name])
		}
	}
	if err := atomicfile.SyncDir(o.DataDir); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "restored from %s: sampan up goes on from there\n", o.From)
	return nil
}

// swap gives two directories each other's name at once, or moves the first one if
// there is no second.
func swap(made, place string) (former bool, err error) {
	err = unix.Renameat2(unix.AT_FDCWD, made, unix.AT_FDCWD, place, unix.RENAME_EXCHANGE)
	if errors.Is(err, unix.ENOENT) {
		return false, os.Rename(made, place)
	}
	return err == nil, err
}
