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

// sizes are those of what is laid out ahead and of what is kept free, in bytes.
type sizes struct {
	// segment is a file of the log.
	segment int64
	// headroom is how much of the disk the database has beyond what it uses: what is
	// written between two batch commits goes there, whatever others do to the disk.
	// Etcd ends the process when it cannot write a batch.
	headroom int64
	// create is what must be free for something new: the next file of the log takes most of
	// it. update is for what changes, with which a node and its pods say how they are, and
	// that they take less.
	create, update int64
}

const (
	// wholeSegment is etcd's own size of a file of the log.
	wholeSegment = 64 * 1000 * 1000
	// onePart is the largest and leastPart the smallest of what is laid out, which is
	// a sixteenth of a small disk: 64 MiB of one that has a GiB.
	onePart, leastPart = 64 << 20, 4 << 20
	// setAside is what ext4 says is free when it is full, and gives to nobody: a fiftieth of
	// a small disk.
	setAside = 16 << 20
)

// sizesOn are those for a disk.
func sizesOn(disk int64) sizes {
	part := max(leastPart, min(onePart, disk/16))
	return sizes{segment: min(wholeSegment, part), headroom: part, create: part * 3 / 2, update: part/8 + min(setAside, disk/50)}
}

// sizesAt are those for the disk that a directory is on.
func sizesAt(dir string) (sizes, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return sizes{}, fmt.Errorf("look at the disk of %q: %w", dir, err)
	}
	return sizesOn(int64(disk.Blocks) * disk.Bsize), nil //nolint:gosec // no disk has 2^63 blocks
}

// room sees to it that the disk has room for what is acknowledged.
type room struct {
	db    *os.File
	sizes sizes

	mu sync.Mutex
	// plain says that the file system cannot lay anything out.
	plain bool
}

// openRoom lays out the database's headroom; on a disk that is full already it gets
// none, and nothing is written until there is some.
func openRoom(dir string, s sizes) (*room, error) {
	db, err := os.OpenFile(filepath.Join(dir, "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	r := &room{db: db, sizes: s}
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
	free, want := int64(disk.Bfree)*disk.Bsize, r.sizes.update
	if create {
		want = r.sizes.create
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
	if st.Blocks*sector >= st.Size+r.sizes.headroom/2 {
		return nil
	}
	err := unix.Fallocate(int(r.db.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size+r.sizes.headroom)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
		r.plain = true
		return nil
	case err != nil:
		return fmt.Errorf("%w: room for %q: %w; deleting still works", store.ErrFull, r.db.Name(), err)
	}
	return nil
}
