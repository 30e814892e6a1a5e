// Package users gives each pod that asks for it (spec.hostUsers: false) a range of
// the host's user and group IDs that no other pod of the node has: KEP-127. What
// a pod was given lies in its directory, in upstream's form, and is its own for as
// long as that directory is there: over restarts of the agent, and until the pod's
// volumes are gone.
package users

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
)

// Unit is how many IDs a pod has unless the node's configuration says otherwise;
// ranges begin at its multiples, so that an ID's upper half tells the pod.
const Unit = 65536

// file holds a pod's range, in its directory.
const file = "userns"

// owner is the user whose subordinate IDs are the pods', when the node has it.
const owner = "kubelet"

// assignTimeout bounds the question which IDs those are.
const assignTimeout = 10 * time.Second

// Config says where ranges are kept and come from.
type Config struct {
	// Root has a directory a pod, by its UID.
	Root string
	// Length is how many IDs a pod gets, a multiple of Unit; 0 means Unit.
	Length uint32
	// Pods is how many pods there must be ranges for.
	Pods int64
	// Log receives what is wrong with ranges that were found; it may be nil.
	Log *slog.Logger
}

// Ranges are the ranges of one node. Its methods may be called concurrently.
type Ranges struct {
	cfg Config
	// first and end bound the IDs that are pods' at all; the host's own, below the
	// first Length, never are.
	first, end uint64

	mu   sync.Mutex
	held map[uint64]string // the first ID of a range, and whose it is
}

// mapping is a part of a pod's range.
type mapping struct {
	Host      uint32 `json:"hostId"`
	Container uint32 `json:"containerId"`
	Length    uint32 `json:"length"`
}

// record is the file's content.
type record struct {
	UIDs []mapping `json:"uidMappings"`
	GIDs []mapping `json:"gidMappings"`
}

// Open finds the ranges that pods have. All IDs above the first Length may be
// given, or the subordinate IDs of the user "kubelet" where there is one and
// getsubids(1): then it fails unless those are aligned and enough.
func Open(cfg Config) (*Ranges, error) {
	if cfg.Length == 0 {
		cfg.Length = Unit
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Ranges{cfg: cfg, first: uint64(cfg.Length), end: math.MaxUint32 + 1, held: map[uint64]string{}}
	if err := r.assigned(); err != nil {
		return nil, fmt.Errorf("user namespaces: kubelet mappings: %w", err)
	}
	entries, err := os.ReadDir(cfg.Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("user namespaces: read pods from disk: %w", err)
	}
	for _, e := range entries {
		first, err := r.read(e.Name())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			cfg.Log.Error("a pod's range of users is unreadable, and the pod will not be run", "uid", e.Name(), "err", err)
		default:
			r.held[first] = e.Name()
		}
	}
	return r, nil
}

// Of is the user namespace of a pod: the one it has, or a new one. Its directory is
// made when it is not there.
func (r *Ranges) Of(uid string) (*rt.UserNamespace, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	first, err := r.read(uid)
	if errors.Is(err, fs.ErrNotExist) {
		first, err = r.allocate(uid)
	}
	if err != nil {
		return nil, err
	}
	ids := func() []*rt.IDMapping {
		return []*rt.IDMapping{{HostId: uint32(first), ContainerId: 0, Length: r.cfg.Length}}
	}
	return &rt.UserNamespace{Mode: rt.NamespaceMode_POD, Uids: ids(), Gids: ids()}, nil
}

// allocate gives a pod the lowest range that nobody has. It is on the disk before
// anything can be done with it.
func (r *Ranges) allocate(uid string) (uint64, error) {
	for first, who := range r.held {
		if _, err := os.Lstat(r.path(who)); errors.Is(err, fs.ErrNotExist) {
			delete(r.held, first) // it went with its pod
		}
	}
	length := uint64(r.cfg.Length)
	for first := r.first; first+length <= r.end; first += length {
		if _, taken := r.held[first]; taken {
			continue
		}
		one := []mapping{{Host: uint32(first), Length: r.cfg.Length}}
		if err := os.MkdirAll(filepath.Dir(r.path(uid)), 0o750); err != nil {
			return 0, fmt.Errorf("create user namespace: %w", err)
		}
		if err := atomicfile.WriteJSON(r.path(uid), record{one, one}); err != nil {
			return 0, fmt.Errorf("create user namespace: %w", err)
		}
		r.held[first] = uid
		return first, nil
	}
	return 0, errors.New("create user namespace: could not find an empty slot to allocate a user namespace")
}

// read is the first ID of the range that a pod has; fs.ErrNotExist when it has none.
func (r *Ranges) read(uid string) (uint64, error) {
	var rec record
	if err := atomicfile.ReadJSON(r.path(uid), &rec); err != nil {
		return 0, fmt.Errorf("user namespace: %w", err)
	}
	if len(rec.UIDs) != 1 || len(rec.GIDs) != 1 || rec.UIDs[0] != rec.GIDs[0] {
		return 0, fmt.Errorf("user namespace: invalid user namespace configuration in %q: one range for users and groups alike is wanted", r.path(uid))
	}
	m := rec.UIDs[0]
	first := uint64(m.Host)
	switch {
	case m.Container != 0:
		return 0, fmt.Errorf("user namespace: invalid user namespace configuration in %q: UID 0 must be mapped", r.path(uid))
	case m.Length != r.cfg.Length:
		return 0, fmt.Errorf("user namespace: wrong user namespace length %d", m.Length)
	case first%uint64(r.cfg.Length) != 0:
		return 0, fmt.Errorf("user namespace: wrong user namespace offset specified %d", first)
	case first < r.first || first+uint64(m.Length) > r.end:
		return 0, fmt.Errorf("user namespace: id %d is out of range", first)
	}
	if who, taken := r.held[first]; taken && who != uid {
		return 0, fmt.Errorf("user namespace: range picked for pod %q already taken", uid)
	}
	return first, nil
}

func (r *Ranges) path(uid string) string { return filepath.Join(r.cfg.Root, filepath.Base(uid), file) }

// assigned asks which IDs the node's administrator has set aside.
func (r *Ranges) assigned() error {
	if _, err := user.Lookup(owner); err != nil {
		var unknown user.UnknownUserError
		if errors.As(err, &unknown) || errors.Is(err, fs.ErrNotExist) { // a machine without a list of users has none of that name
			return nil
		}
		return err
	}
	program, err := exec.LookPath("getsubids")
	if err != nil {
		return nil //nolint:nilerr // without the program nothing is set aside, as upstream has it
	}
	ctx, cancel := context.WithTimeout(context.Background(), assignTimeout)
	defer cancel()
	users, err := exec.CommandContext(ctx, program, owner).Output()
	if err != nil {
		return fmt.Errorf("error retrieving additional uids for user %q: %w", owner, err)
	}
	groups, err := exec.CommandContext(ctx, program, "-g", owner).Output()
	if err != nil {
		return fmt.Errorf("error retrieving additional gids for user %q: %w", owner, err)
	}
	if !bytes.Equal(users, groups) {
		return fmt.Errorf("mismatched subuids and subgids for user %q", owner)
	}
	return r.restrict(string(users))
}

// restrict keeps to what getsubids has said: one line, "0: kubelet FIRST COUNT".
func (r *Ranges) restrict(said string) error {
	said = strings.TrimSpace(said)
	f := strings.Fields(said)
	if strings.Contains(said, "\n") || len(f) != 4 {
		return fmt.Errorf("error parsing output %q of getsubids: one line of four words is wanted", said)
	}
	first, err := strconv.ParseUint(f[2], 10, 32)
	if err != nil {
		return fmt.Errorf("error parsing output %q of getsubids: %w", said, err)
	}
	count, err := strconv.ParseUint(f[3], 10, 32)
	if err != nil {
		return fmt.Errorf("error parsing output %q of getsubids: %w", said, err)
	}
	length := uint64(r.cfg.Length)
	switch {
	case first%length != 0:
		return fmt.Errorf("kubelet user assigned ID %d is not a multiple of %d", first, length)
	case first < length:
		return fmt.Errorf("kubelet user assigned ID %d must be greater or equal to %d", first, length)
	case count%length != 0:
		return fmt.Errorf("kubelet user assigned IDs length %d is not a multiple of %d", count, length)
	case int64(count/length) < r.cfg.Pods:
		return fmt.Errorf("kubelet user assigned IDs are not enough to support %d pods", r.cfg.Pods)
	}
	r.first, r.end = first, first+count
	return nil
}
