package etcd

import (
	"context"
	"errors"
	"expvar"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
)

const (
	// memberName and memberURL are what etcd's records call the only member. The
	// address is never listened on; etcd insists on one.
	memberName = "sampan"
	memberURL  = "http://127.0.0.1:2380"

	// tick and electionTicks only have to keep idle cost low: a single member is
	// told to elect itself. Three times their product, halved, is etcd's shortest
	// lease: a second.
	tick          = 300 * time.Millisecond
	electionTicks = 2
	// campaignEvery is how often a starting server is told to elect itself: raft
	// refuses until it has read its own configuration from the log.
	campaignEvery = 2 * time.Millisecond

	// quota is how large the database may grow before etcd refuses writes.
	quota = 8 << 30
	// maxRequest is etcd's own default; store.MaxValue follows from it.
	maxRequest = 1536 * 1024
	// maxTxnOps is etcd's own default.
	maxTxnOps = 128

	// snapshotCount is how many writes lie between two snapshots of the log: it
	// bounds what a start has to read again. While more than 5,000 of them wait
	// to be looked at, etcd takes no write and spins, so it stays well below.
	snapshotCount = 2_000
	// catchUp is how many writes stay in memory for followers. There are none, but
	// it has to be more than a start reads again: a member that elects itself
	// looks through those, and panics if they have been let go meanwhile. Each is a
	// whole object, so this is the largest thing of etcd's in memory.
	catchUp = 5_000
	// keepFiles is how many old snapshots and logs are kept for the unlucky.
	keepFiles = 2

	// batchInterval and batchLimit bound how much of the log lies ahead of the
	// database, as every snapshot of the log does. Writes are durable in the log;
	// after a crash they are replayed. While etcd brings its database to disk it
	// neither writes nor reads: once a second, every hundredth of a hundred writes
	// a second would wait for that.
	batchInterval = 10 * time.Second
	batchLimit    = 10_000

	// bcryptCost is etcd's own default; there are no passwords, but it asks.
	bcryptCost = 10

	// slow is when etcd complains about a request.
	slow = time.Second
	// stopTimeout bounds how long open connections on the socket hold up Close.
	stopTimeout = 2 * time.Second
)

// EmbedConfig is what an embedded server needs.
type EmbedConfig struct {
	// Dir holds the data: nothing else. It is made if missing, and its mode set to
	// 0700.
	Dir string
	// Socket is the path of a unix socket on which etcd's own tools may connect
	// ("etcdctl --endpoints unix://PATH"): whoever can open it is all-powerful.
	// Empty: no listener of any kind.
	Socket string
	// Prefix is as in Config.
	Prefix string
	// Log hears etcd's warnings; nil means slog.Default.
	Log *slog.Logger
}

// Server is an etcd of one member inside this process.
type Server struct {
	store *Store
	etcd  *etcdserver.EtcdServer
	lock  *dirLock
	room  *room
	pulse *pulse
	grpc  *grpc.Server
}

// Start runs a server on a data directory, new or old, and returns when it takes
// writes. ErrLocked when another server has the directory. Data that etcd cannot
// read is an error that tells what etcd found; nothing is changed then.
func Start(ctx context.Context, cfg EmbedConfig) (started *Server, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start etcd in %q: %w", cfg.Dir, err)
		}
	}()
	if err := errors.Join(os.MkdirAll(cfg.Dir, 0o700), os.Chmod(cfg.Dir, 0o700)); err != nil {
		return nil, err
	}
	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{lock: lock}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	sizes, err := sizesAt(cfg.Dir)
	if err != nil {
		return nil, err
	}
	if wal.SegmentSizeBytes != sizes.segment { // of the process, which has one etcd outside of tests
		wal.SegmentSizeBytes = sizes.segment
	}
	end, err := examineLog(cfg.Dir, loggerOf(cfg.Log))
	if err = errors.Join(err, examineDB(cfg.Dir)); err != nil {
		return nil, err
	}
	if s.etcd, err = newServer(cfg); err != nil {
		return nil, err
	}
	if err := agree(cfg.Dir, s.etcd, end); err != nil {
		s.etcd.Cleanup() // it has not been started, and can't be stopped
		s.etcd = nil
		return nil, err
	}
	s.etcd.Start()
	if err := lead(ctx, s.etcd); err != nil {
		return nil, err
	}
	if s.room, err = openRoom(cfg.Dir, sizes); err != nil {
		return nil, err
	}
	if s.pulse, err = openPulse(cfg.Dir); err != nil {
		return nil, err
	}
	s.store = newStore(v3client.New(s.etcd), cfg.Prefix)
	s.store.beHere(&here{kv: s.etcd.KV(), member: s.etcd, room: s.room, pulse: s.pulse, guard: v3rpc.NewQuotaKVServer(s.etcd),
		quota: storage.NewBackendQuota(s.etcd.Logger(), quota, s.etcd.Backend(), "kv")})
	if cfg.Socket == "" {
		return s, nil
	}
	return s, s.listen(cfg.Socket)
}

// Store is the server's store. Closing the server closes it.
func (s *Server) Store() *Store { return s.store }

// Close stops the server and releases its directory. Every acknowledged write is
// on disk, as it was before.
func (s *Server) Close() error {
	var errs []error
	if s.grpc != nil {
		hurry := time.AfterFunc(stopTimeout, s.grpc.Stop)
		s.grpc.GracefulStop()
		hurry.Stop()
		s.grpc = nil
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.etcd != nil {
		s.etcd.HardStop() // there is nobody to hand leadership to
		s.etcd = nil
	}
	if s.room != nil {
		errs = append(errs, s.room.close())
		s.room = nil
	}
	if s.pulse != nil {
		errs = append(errs, s.pulse.close())
		s.pulse = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.release())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// Backup writes a consistent copy of the database, as "etcdutl snapshot restore"
// takes it, while the server goes on.
func (s *Server) Backup(ctx context.Context, to io.Writer) error {
	from, err := s.store.client.Snapshot(ctx)
	if err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	defer from.Close()
	if _, err := io.Copy(to, from); err != nil {
		return fmt.Errorf("back up etcd: %w", err)
	}
	return nil
}

// listen serves etcd's API on a unix socket.
func (s *Server) listen(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return errors.Join(err, listener.Close())
	}
	s.grpc = v3rpc.Server(s.etcd, nil, nil)
	go func() { _ = s.grpc.Serve(listener) }() // ends, with no news in its error, when Close stops it
	return nil
}

// newServer reads the data directory. What etcd would exit the process for
// becomes an error.
func newServer(cfg EmbedConfig) (server *etcdserver.EtcdServer, err error) {
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case abort:
			err = reason
		default: // a page of the database is not what it should be
			loggerOf(cfg.Log).Debug("etcd cannot use the data", "reason", reason, "stack", string(debug.Stack()))
			err = fmt.Errorf("%q: %v", filepath.Join(cfg.Dir, "member"), reason)
		}
		outside := new(os.PathError)
		switch {
		case errors.Is(err, unix.ENOSPC):
			err = fmt.Errorf("the disk is full, and etcd lays out files of %d MB for its log: make room: %w", wal.SegmentSizeBytes/1_000_000, err)
		case err != nil && !errors.As(err, &outside):
			err = fmt.Errorf("etcd cannot use the data (restore a backup, or move the directory away to begin anew): %w", err)
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // the database is read as memory
	urls := types.MustNewURLs([]string{memberURL})
	log := bridge(cfg.Log)
	return etcdserver.NewServer(config.ServerConfig{
		Name:                        memberName,
		ClientURLs:                  urls,
		PeerURLs:                    urls,
		InitialPeerURLsMap:          types.URLsMap{memberName: urls},
		InitialClusterToken:         memberName,
		NewCluster:                  true,
		DataDir:                     cfg.Dir,
		SnapshotCount:               snapshotCount,
		SnapshotCatchUpEntries:      catchUp,
		MaxSnapFiles:                keepFiles,
		MaxWALFiles:                 keepFiles,
		BackendBatchInterval:        batchInterval,
		BackendBatchLimit:           batchLimit,
		BackendFreelistType:         "map",
		QuotaBackendBytes:           quota,
		TickMs:                      uint(tick / time.Millisecond),
		ElectionTicks:               electionTicks,
		MaxTxnOps:                   maxTxnOps,
		MaxRequestBytes:             maxRequest,
		MaxConcurrentStreams:        1 << 20,
		WarningApplyDuration:        slow,
		WarningUnaryRequestDuration: slow,
		BcryptCost:                  bcryptCost,
		Logger:                      log,
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(memberName, log),
		Metrics:                     "basic",
	})
}

// lead makes a starting server the leader of itself, and waits until it takes
// writes. Raft would get there alone, after an election timeout.
func lead(ctx context.Context, server *etcdserver.EtcdServer) error {
	self := uint64(server.MemberID())
	settled := 0 // how often in a row nothing was left to apply
	retry := time.NewTicker(campaignEvery)
	defer retry.Stop()
	for {
		select {
		case <-server.ReadyNotify():
			return nil
		case <-server.StopNotify():
			return errors.New("etcd stopped while starting")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-retry.C:
		}
		if settled++; server.AppliedIndex() == 0 || server.AppliedIndex() < server.CommittedIndex() || !caughtUp(self) {
			settled = 0
		}
		if settled < 2 || server.Leader() != 0 {
			continue
		}
		campaign := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &self, From: &self}
		if err := server.Process(ctx, campaign); err != nil {
			return fmt.Errorf("campaign: %w", err)
		}
	}
}

// caughtUp says whether raft itself knows that all is applied. The server knows
// first, and may then drop the log's first entry, which raft would still look at
// in a campaign, and panic. Etcd shows raft's own view as a variable of the
// process only: of the server that started last. Another's answer proves nothing.
func caughtUp(self uint64) bool {
	shown, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return true
	}
	status, ok := shown.Value().(raft.Status)
	return !ok || status.ID != self || status.Applied >= status.GetCommit()
}
