package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"golang.org/x/sys/unix"
)

// The database's first two pages each describe it (bbolt's meta pages); of those whose
// checksum is right the one of the later transaction counts.
const (
	metaMagic = 0xED0CDAED
	metaAt    = 16 // behind the page's own header
	metaSize  = 64

	// Where the magic number is, and the size of a page, the page of all buckets, how many
	// pages there are, the transaction's number, and the checksum of all before it.
	magicAt, pageSizeAt, rootAt, pagesAt, turnAt, sumAt = 0, 8, 16, 40, 48, 56
)

// What a page is, by a bit of its header, and what is in it (bbolt's format).
const (
	branchPage, leafPage = 0x01, 0x02
	bucketLeaf           = 0x01
	// headSize is a page's header, elementSize what says where a record in it is.
	headSize, elementSize = 16, 16
	// maxDepth is how deep pages may lie below each other: more than any tree that fits a disk.
	maxDepth = 64
)

// examineDB refuses a database whose pages do not hang together, or that is shorter than
// it says: whoever opens it would end the process for either, from a goroutine of its
// own, with no word about which file it was. What is in the records is not looked at.
func examineDB(dir string) error {
	path := filepath.Join(dir, "member", "snap", "db")
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	meta, ok := newestMeta(f)
	if !ok { // etcd says so
		return nil
	}
	t := &tree{size: int64(binary.LittleEndian.Uint32(meta[pageSizeAt:])), pages: binary.LittleEndian.Uint64(meta[pagesAt:])}
	if want := t.size * int64(t.pages); info.Size() < want {
		return fmt.Errorf("%q is cut short at byte %d of %d (nothing has been changed; restore a backup, or move the directory away to begin anew)",
			path, info.Size(), want)
	}
	// Etcd reads all of it into the page cache too when it opens it; from there the pages
	// are looked at in a tenth of the time. Read as the tree leads it takes twice as long.
	if t.b, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED|unix.MAP_POPULATE); err != nil {
		return fmt.Errorf("look at the database %q: %w", path, err)
	}
	defer func() { _ = unix.Munmap(t.b) }() // what was mapped can be unmapped
	if at := t.walk(binary.LittleEndian.Uint64(meta[rootAt:]), maxDepth); at >= 0 {
		return fmt.Errorf("%q is damaged in the page at byte %d (nothing has been changed; restore a backup, or move the directory away to begin anew)", path, at)
	}
	return nil
}

// tree is the pages of a database.
type tree struct {
	b     []byte
	size  int64  // of a page
	pages uint64 // how many there are
	seen  uint64
}

// walk looks at a page and all below it, and says where one is damaged; -1 is nowhere.
func (t *tree) walk(number uint64, depth int) int64 {
	if number < 2 || number >= t.pages || depth == 0 || t.seen > t.pages {
		return max(0, int64(min(number, t.pages))*t.size)
	}
	t.seen++
	at := int64(number) * t.size
	head := t.b[at:]
	flags, count := binary.LittleEndian.Uint16(head[8:]), int(binary.LittleEndian.Uint16(head[10:]))
	more := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head) != number || flags != branchPage && flags != leafPage || number+more >= t.pages {
		return at
	}
	page := head[:t.size*int64(more+1)]
	if headSize+count*elementSize > len(page) {
		return at
	}
	for i := range count {
		below, ok := child(page, headSize+i*elementSize, flags)
		if !ok {
			return at
		}
		if below == 0 {
			continue
		}
		if bad := t.walk(below, depth-1); bad >= 0 {
			return bad
		}
	}
	return -1
}

// child is the page below an element of a page, 0 if there is none; not ok when the
// element leads out of its page.
func child(page []byte, at int, flags uint16) (below uint64, ok bool) {
	word := func(i int) uint64 { return uint64(binary.LittleEndian.Uint32(page[at+4*i:])) }
	if flags == branchPage { // where the key is, how long it is, and the page
		return binary.LittleEndian.Uint64(page[at+8:]), uint64(at)+word(0)+word(1) <= uint64(len(page))
	}
	// Its kind, where it is, and how long key and value are.
	value := uint64(at) + word(1) + word(2)
	if value+word(3) > uint64(len(page)) {
		return 0, false
	}
	if word(0)&bucketLeaf == 0 {
		return 0, true
	}
	if word(3) < 2*8 {
		return 0, false
	}
	return binary.LittleEndian.Uint64(page[value:]), true // 0: the bucket is in the value
}

// newestMeta is the page that describes the database as it is.
func newestMeta(db io.ReaderAt) (newest []byte, ok bool) {
	for page := range int64(2) {
		meta := make([]byte, metaSize)
		if _, err := db.ReadAt(meta, page*int64(os.Getpagesize())+metaAt); err != nil || !validMeta(meta) {
			continue
		}
		if !ok || binary.LittleEndian.Uint64(meta[turnAt:]) > binary.LittleEndian.Uint64(newest[turnAt:]) {
			newest, ok = meta, true
		}
	}
	return newest, ok
}

func validMeta(meta []byte) bool {
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:sumAt])
	return binary.LittleEndian.Uint32(meta[magicAt:]) == metaMagic && binary.LittleEndian.Uint64(meta[sumAt:]) == sum.Sum64()
}

// agree refuses a database that has writes which its log does not: the next ones would
// get their numbers, and be passed over as done.
func agree(dir string, server *etcdserver.EtcdServer, end logEnd) error {
	applied, _ := schema.ReadConsistentIndex(server.Backend().ReadTx())
	if end.last == 0 || applied <= end.last {
		return nil
	}
	return fmt.Errorf("the log in %q ends with write %d, but the database has write %d: the log has lost its end "+
		"(restore a backup, or move the directory away to begin anew)", filepath.Join(dir, "member", "wal"), end.last, applied)
}
