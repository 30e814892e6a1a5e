package etcd_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/sampan-dev/sampan/control/store"
)

// A log with more writes to read again than etcd takes new ones beside is read again
// without a word: other etcds make snapshots more seldom, so it may be such a log.
func TestLongLog(t *testing.T) {
	const writes = 12_000
	cfg, _ := written(t, 1)
	lengthen(t, filepath.Join(cfg.Dir, "member", "wal"), writes)
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	server := start(t, cfg)
	listing, err := server.Store().List(t.Context(), "/long/", store.ListOptions{})
	if err != nil || len(listing.Entries) != writes {
		t.Errorf("%d of %d writes are there, %v", len(listing.Entries), writes, err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if log.Len() > 0 {
		t.Errorf("etcd said %d lines: %s", bytes.Count(log.Bytes(), []byte("\n")), log.Bytes()[:min(log.Len(), 1000)])
	}
}

// lengthen adds committed writes to a log, none of which the database has.
func lengthen(t *testing.T, dir string, writes int) {
	t.Helper()
	w, err := wal.Open(zap.NewNop(), dir, &walpb.Snapshot{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, state, entries, err := w.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	last := entries[len(entries)-1].GetIndex()
	added := make([]*raftpb.Entry, 0, writes)
	for i := range writes {
		put := &pb.InternalRaftRequest{
			Header: &pb.RequestHeader{ID: uint64(i + 1)},
			Put:    &pb.PutRequest{Key: fmt.Appendf(nil, "/long/%06d", i), Value: bytes.Repeat([]byte("v"), 20)},
		}
		data, err := proto.Marshal(put)
		if err != nil {
			t.Fatal(err)
		}
		last++
		added = append(added, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: state.Term, Index: proto.Uint64(last), Data: data})
	}
	state.Commit = proto.Uint64(last)
	if err := w.Save(state, added); err != nil {
		t.Fatal(err)
	}
}
