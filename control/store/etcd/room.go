package etcd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/control/store"
)

const (
	// headroom is how much of the disk the database has beyond what it uses: what is
	// written between two batch commits goes there, whatever others do to the disk.
	// Etcd ends the process when it cannot write a batch.
	headroom = 64 << 20
	// roomToCreate is what must be free for something new: the next file of the log takes
	// most of it. roomToUpdate is for what changes, with which a node and its pods say how
	// they are, and that they take less; a full ext4 says that 16 MiB are free, which it
	// gives to nobody.
	roomToCreate = 96 << 20
	roomToUpdate = 24 << 20
)

// room sees to it that the disk has room for what is acknowledged.
type room struct {
	db *os.File

	mu sync.Mutex
	// plain says that the file system cannot lay anything out.
	plain bool
}

// openRoom lays out the database's headroom; on a disk that is full already it gets
// none, and nothing is written until there is some.
func openRoom(dir string) (*room, error) {
	db, err := os.OpenFile(filepath.Join(dir, "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	r := &room{db: db}
	_ = r.layOut() // each write asks again
	return r, nil
}

func (r *room) close() error { return r.db.Close() }

// check says whether something may be written: store.ErrFull when it may not.
func (r *room) check(create bool) error {
	var disk unix.Statfs_t
	if err := unix.Fstatfs(int(r.db.Fd()), &disk); err != nil {
		return fmt.Errorf("look at the disk of %q: %w", r.db.Name(), err)
	}
	free, want := int64(disk.Bfree)*disk.Bsize, int64(roomToUpdate)
	if create {
		want = roomToCreate
	}
	if free < want {
		return fmt.Errorf("%w: %d MiB are free where %q is, and this takes %d; deleting still works", store.ErrFull, free>>20, r.db.Name(), want>>20)
	}
	return r.layOut()
}

// layOut brings the headroom back to its size once half of it is used.
func (r *room) layOut() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.plain {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(r.db.Fd()), &st); err != nil {
		return fmt.Errorf("look at %q: %w", r.db.Name(), err)
	}
	if st.Blocks*sector >= st.Size+headroom/2 {
		return nil
	}
	err := unix.Fallocate(int(r.db.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size+headroom)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		r.plain = true
		return nil
	case err != nil:
		return fmt.Errorf("%w: room for %q: %w; deleting still works", store.ErrFull, r.db.Name(), err)
	}
	return nil
}
