package etcd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Etcd ends its log at the first record that it takes for torn, and at the first
// length of zero, and throws away what follows. That is right after a power cut, and
// silent loss when a bit of an old record's length has flipped or a sector in the
// middle of the log reads as zeros. So the log is looked at before etcd opens it: a
// length leads to the next, which costs no more than the pages that etcd reads anyhow,
// and only a log that does not end as logs do is read more closely.

const (
	// lengthSize is the field before each record: its length in the lower 56 bits,
	// the padding to 8 bytes in the topmost byte.
	lengthSize = 8
	// tornZeros is how many zeros end a record whose rest never reached the disk.
	tornZeros = 8
	// pendingEntries bounds how far back the last entry is looked for, in records.
	pendingEntries = 256
)

// logEnd is where a sound log ends.
type logEnd struct {
	// last is the index of its last entry or snapshot; 0 if it could not be told cheaply.
	last uint64
}

// examineLog refuses a log in whose middle something is damaged, before etcd takes
// the damage for the log's end. A torn end, as a power cut leaves it, is cut off;
// the file as it was is kept beside it.
func examineLog(dir string, log *slog.Logger) (logEnd, error) {
	files, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(files) == 0 {
		return logEnd{}, errors.Join(err, missingLog(dir))
	}
	slices.Sort(files)
	var end logEnd
	for i, path := range files {
		w, err := openLog(path, i == len(files)-1)
		if err != nil {
			return logEnd{}, err
		}
		switch {
		case !w.hop():
			err = w.judge(log)
		case w.newest:
			end.last = w.lastIndex()
		}
		if err = errors.Join(err, w.close()); err != nil {
			return logEnd{}, err
		}
	}
	return end, nil
}

// missingLog refuses a database whose log is gone: a new log would begin with
// numbers that the database takes for done, and pass over every write.
func missingLog(dir string) error {
	db := filepath.Join(dir, "member", "snap", "db")
	if _, err := os.Stat(db); err != nil {
		return nil //nolint:nilerr // a new directory
	}
	return fmt.Errorf("%q is there, but %q has no log: restore it from a backup, or move %q away to begin anew",
		db, filepath.Join(dir, "member", "wal"), dir)
}

// logFile is one file of the log, in memory as far as it is looked at.
type logFile struct {
	path   string
	newest bool // etcd goes on writing it
	file   *os.File
	b      []byte
	seen   []int // where the last records began
}

func openLog(path string, newest bool) (*logFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("look at the log: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at the log: %w", err), f.Close())
	}
	w := &logFile{path: path, newest: newest, file: f}
	if info.Size() == 0 {
		return w, nil
	}
	w.b, err = unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("look at the log %q: %w", path, err), f.Close())
	}
	return w, nil
}

func (w *logFile) close() error {
	var err error
	if w.b != nil {
		err = unix.Munmap(w.b)
	}
	return errors.Join(err, w.file.Close())
}

// frame is the place of the record at an offset: its bytes, and where the next
// begins. It is not ok where no record can be.
func (w *logFile) frame(at int) (record []byte, next int, ok bool) {
	if at+lengthSize > len(w.b) {
		return nil, 0, false
	}
	field := binary.LittleEndian.Uint64(w.b[at:])
	size, pad := field&(1<<56-1), 0
	if top := field >> 56; top&0x80 != 0 {
		pad = int(top & 7)
	}
	if size == 0 || size > uint64(len(w.b)-at-lengthSize-pad) {
		return nil, 0, false
	}
	from := at + lengthSize
	return w.b[from : from+int(size)], from + int(size) + pad, true
}

// hop goes from length to length to the end. It is sound when it ends as etcd leaves
// it: at the file's end, or in the newest file at zeros and nothing else, of which its
// last record has none.
func (w *logFile) hop() (sound bool) {
	at, last := 0, []byte(nil)
	for at < len(w.b) {
		record, next, ok := w.frame(at)
		if !ok {
			break
		}
		last = record
		if w.seen = append(w.seen, at); len(w.seen) == 2*pendingEntries {
			w.seen = append(w.seen[:0], w.seen[pendingEntries:]...)
		}
		at = next
	}
	if allZero(last[max(0, len(last)-tornZeros):]) {
		return false
	}
	return at == len(w.b) || w.newest && w.zeroFrom(at)
}

// zeroFrom says whether nothing but zeros follows; what the file system has never
// been given is not read.
func (w *logFile) zeroFrom(at int) bool {
	for at < len(w.b) {
		data, err := unix.Seek(int(w.file.Fd()), int64(at), unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return true
		}
		if err != nil {
			data = int64(at) // the file system cannot tell: read it all
		}
		hole, err := unix.Seek(int(w.file.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			hole = int64(len(w.b))
		}
		if !allZero(w.b[data:hole]) {
			return false
		}
		at = int(hole)
	}
	return true
}

func allZero(b []byte) bool {
	return !slices.ContainsFunc(b, func(b byte) bool { return b != 0 })
}

// lastIndex is that of the last entry before the end that hop has found.
func (w *logFile) lastIndex() uint64 {
	for _, at := range slices.Backward(w.seen) {
		raw, _, _ := w.frame(at)
		var record walpb.Record
		if proto.Unmarshal(raw, &record) != nil {
			return 0
		}
		if index := indexOf(&record); index > 0 {
			return index
		}
	}
	return 0
}

// indexOf is the index of an entry or a snapshot; 0 for other records.
func indexOf(record *walpb.Record) uint64 {
	var entry raftpb.Entry
	var snapshot walpb.Snapshot
	switch {
	case record.GetType() == wal.EntryType && proto.Unmarshal(record.GetData(), &entry) == nil:
		return entry.GetIndex()
	case record.GetType() == wal.SnapshotType && proto.Unmarshal(record.GetData(), &snapshot) == nil:
		return snapshot.GetIndex()
	}
	return 0
}

// castagnoli is the polynomial of the log's checksums, each of which goes on from
// the one before.
var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant

// judge reads a log that does not end as logs do. Damage with acknowledged writes
// behind it is an error; a torn end is cut off; the rest is for etcd to refuse.
func (w *logFile) judge(log *slog.Logger) error {
	bad, crc, last := w.sound()
	used := w.used()
	if committed := w.committedAfter(bad, used); committed > last {
		return fmt.Errorf("%q is damaged at byte %d: the %d writes from %d to %d, which were acknowledged, lie behind it "+
			"(nothing has been changed; restore a backup, or move the directory away to begin anew)",
			w.path, bad, committed-last, last+1, committed)
	}
	switch w.endAt(bad, used, crc) {
	case torn:
		kept, err := w.cut(bad, used)
		log.Warn("the end of the log was torn, as a power cut leaves it, and is cut off",
			"file", w.path, "byte", bad, "bytes", used-bad, "last write", last, "kept", kept)
		return err
	case wrongLength:
		return fmt.Errorf("%q is damaged at byte %d: what is there does not end where it says "+
			"(nothing has been changed; restore a backup, or move the directory away to begin anew)", w.path, bad)
	default:
		return nil
	}
}

// sound reads records until one is not what was written: where it begins, the
// checksum before it, and the last index before it.
func (w *logFile) sound() (bad int, crc uint32, last uint64) {
	for bad < len(w.b) {
		raw, next, ok := w.frame(bad)
		var record walpb.Record
		if !ok || proto.Unmarshal(raw, &record) != nil {
			return bad, crc, last
		}
		sum := record.GetCrc()
		if record.GetType() != wal.CrcType && crc32.Update(crc, castagnoli, record.GetData()) != sum {
			return bad, crc, last
		}
		bad, crc, last = next, sum, max(last, indexOf(&record))
	}
	return bad, crc, last
}

// committedAfter finds the records behind the damage, and how far they say that
// writes had been acknowledged. A record counts when its checksum goes on from that of
// the one before it: what looks like a record by chance does not.
func (w *logFile) committedAfter(bad, used int) (committed uint64) {
	for at := bad; at < used; {
		before, next, ok := w.record(at)
		record, _, follows := w.record(next)
		if !ok || !follows || crc32.Update(before.GetCrc(), castagnoli, record.GetData()) != record.GetCrc() {
			at += lengthSize // records begin at multiples of it
			continue
		}
		var state raftpb.HardState
		if record.GetType() == wal.StateType && proto.Unmarshal(record.GetData(), &state) == nil {
			committed = max(committed, state.GetCommit())
		}
		at = next
	}
	return committed
}

func (w *logFile) record(at int) (*walpb.Record, int, bool) {
	raw, next, ok := w.frame(at)
	record := &walpb.Record{}
	if !ok || proto.Unmarshal(raw, record) != nil || record.GetType() < wal.MetadataType || record.GetType() > wal.SnapshotType {
		return nil, 0, false
	}
	return record, next, true
}

// used is where the last byte that is not zero ends.
func (w *logFile) used() int {
	for n := len(w.b); n > 0; n-- {
		if w.b[n-1] != 0 {
			return n
		}
	}
	return 0
}

// ending is what the record at the end of a log is.
type ending int

const (
	// refused is damaged, and etcd says so itself.
	refused ending = iota
	// torn never reached the disk whole.
	torn
	// wrongLength says of itself that it is longer than it can be: etcd takes it for torn.
	wrongLength
)

// endAt says what has become of the record at which a log ceases to be sound, with
// nothing behind it that was acknowledged.
func (w *logFile) endAt(bad, used int, crc uint32) ending {
	_, next, ok := w.frame(bad)
	switch {
	case !w.newest:
		return refused
	case w.wholeAt(bad, used, crc):
		return wrongLength
	case ok && (next-used >= tornZeros || w.zeroSector(bad, next)):
		return torn
	case ok:
		return refused
	case len(w.b)-used < tornZeros, bad+lengthSize > len(w.b), binary.LittleEndian.Uint64(w.b[bad:]) == 0:
		return torn // the file itself was cut, or the first sector is missing
	}
	return wrongLength
}

// wholeAt says whether a whole record is at an offset whose length field is wrong.
func (w *logFile) wholeAt(at, used int, crc uint32) bool {
	for end := used; end < used+lengthSize && end <= len(w.b) && at+lengthSize < end; end++ {
		var record walpb.Record
		if proto.Unmarshal(w.b[at+lengthSize:end], &record) == nil && crc32.Update(crc, castagnoli, record.GetData()) == record.GetCrc() {
			return true
		}
	}
	return false
}

// zeroSector says whether a sector of a record is all zeros: disks write sectors whole.
func (w *logFile) zeroSector(at, end int) bool {
	for from := at + lengthSize; from < end; {
		to := min(end, (from/sector+1)*sector)
		if allZero(w.b[from:to]) {
			return true
		}
		from = to
	}
	return false
}

// cut ends the file before its torn record. What is cut off is kept, in the directory
// above: etcd complains of strangers beside its log.
func (w *logFile) cut(bad, used int) (kept string, err error) {
	kept = filepath.Join(filepath.Dir(filepath.Dir(filepath.Dir(w.path))), filepath.Base(w.path)+".torn")
	if err := atomicfile.Write(kept, w.b[:used], 0o600); err != nil {
		return kept, fmt.Errorf("keep the torn log: %w", err)
	}
	f, err := os.OpenFile(w.path, os.O_RDWR, 0)
	if err != nil {
		return kept, fmt.Errorf("cut the torn log: %w", err)
	}
	if err := errors.Join(f.Truncate(int64(bad)), f.Sync(), f.Close()); err != nil {
		return kept, fmt.Errorf("cut the torn log %q: %w", w.path, err)
	}
	return kept, nil
}
