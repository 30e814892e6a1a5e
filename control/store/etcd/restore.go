package etcd

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

const (
	// sector is what the length of a database is a multiple of. A backup is longer, by
	// its checksum.
	sector = 512
	// bump is how far the revisions of a restored store are ahead of the backup's: farther
	// than anything that was written after the backup, and that clients remember.
	bump = 1_000_000_000
	// restoreBatch is how many records are written at once.
	restoreBatch = 10_000
	// restoreLock is how long the lock of a backup is waited for, which nobody has.
	restoreLock = time.Second
)

// Restore makes a data directory of what Backup wrote to a file. The directory must not
// be there. Its revisions go on far behind those of the backup, whose own are compacted:
// a client that has seen what came after the backup is told to list anew, and does not
// take another object for one that it knows.
func Restore(ctx context.Context, cfg EmbedConfig, backup string) error {
	if err := verify(backup); err != nil {
		return fmt.Errorf("restore %q: %w", backup, err)
	}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("restore %q: %w", backup, err)
	}
	// A new member, with a log of its own, and then the objects.
	server, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	if err := server.Close(); err != nil {
		return err
	}
	if err := transplant(ctx, backup, filepath.Join(cfg.Dir, "member", "snap", "db")); err != nil {
		return fmt.Errorf("restore %q: %w", backup, err)
	}
	return nil
}

// verify compares a backup with its checksum.
func verify(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()%sector != sha256.Size {
		return fmt.Errorf("of %d bytes, it is cut short, or no backup", info.Size())
	}
	sum, said := sha256.New(), make([]byte, sha256.Size)
	if _, err := io.CopyN(sum, f, info.Size()-sha256.Size); err != nil {
		return err
	}
	if _, err := io.ReadFull(f, said); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), said) {
		return errors.New("its checksum is wrong: it is damaged, or was not written to the end")
	}
	return nil
}

// transplant copies objects and leases of a backup into an empty database.
func transplant(ctx context.Context, backup, target string) error {
	from, err := bbolt.Open(backup, 0o600, &bbolt.Options{ReadOnly: true, Timeout: restoreLock})
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // it was only read
	to, err := bbolt.Open(target, 0o600, &bbolt.Options{Timeout: restoreLock, NoFreelistSync: true})
	if err != nil {
		return err
	}
	err = from.View(func(read *bbolt.Tx) error {
		for _, name := range [][]byte{schema.Key.Name(), schema.Lease.Name()} {
			if err := copyBucket(ctx, to, read.Bucket(name), name); err != nil {
				return err
			}
		}
		last, _ := read.Bucket(schema.Key.Name()).Cursor().Last()
		return to.Update(func(write *bbolt.Tx) error { return goOn(write, last) })
	})
	return errors.Join(err, to.Close())
}

// copyBucket copies a bucket, a batch at a time.
func copyBucket(ctx context.Context, to *bbolt.DB, from *bbolt.Bucket, name []byte) error {
	if from == nil {
		return fmt.Errorf("it has no %s", name)
	}
	records := from.Cursor()
	for key, value := records.First(); key != nil; {
		err := to.Update(func(tx *bbolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists(name)
			if err != nil {
				return err
			}
			bucket.FillPercent = 0.9 // they come in order
			for n := 0; n < restoreBatch && key != nil; n++ {
				if err := bucket.Put(key, value); err != nil {
					return err
				}
				key, value = records.Next()
			}
			return ctx.Err()
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// goOn puts a record of nothing far behind the last one, and has all before it compacted.
func goOn(tx *bbolt.Tx, last []byte) error {
	revision := mvcc.Revision{Main: 1}
	if len(last) > 0 {
		revision = mvcc.BytesToRev(last)
	}
	mark := mvcc.RevToBytes(mvcc.Revision{Main: revision.Main + bump}, mvcc.NewRevBytes())
	return errors.Join(tx.Bucket(schema.Key.Name()).Put(mark, nil),
		tx.Bucket(schema.Meta.Name()).Put(schema.ScheduledCompactKeyName, mark))
}
