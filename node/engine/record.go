package engine

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/engine/spec"
)

// sandbox is what the engine knows of a pod sandbox. A value in the records is
// never changed: a change makes a copy.
type sandbox struct {
	ID        string
	Config    *rt.PodSandboxConfig `json:"-"`
	Handler   string
	CreatedAt int64 // nanoseconds
	// Ready is false while it is made, and from StopPodSandbox on.
	Ready bool
	IPs   []netip.Addr
	// NetNS is the path of its network namespace; empty means the host's.
	NetNS string
	// Labels are what SELinux knows the pod by.
	Labels spec.Labels `json:",omitzero"`
}

// ctr is what the engine knows of a container beyond what the runtime does.
type ctr struct {
	ID, SandboxID string
	Config        *rt.ContainerConfig `json:"-"`
	// ImageID is the image's ID, ImageRef one of its digest references.
	ImageID, ImageRef string
	CreatedAt         int64 // nanoseconds
	LogPath           string
	StopSignal        int
	User              spec.User
	// Env and Cwd are those of its process, and of every exec in it.
	Env []string
	Cwd string
	// Volumes are how many snapshots of images it has mounted as volumes.
	Volumes int
	// Kept is the key of the snapshot that it shares with those before and after it;
	// empty for one of its own, whose key is its ID.
	Kept string `json:",omitempty"`
	// Restored says that its processes came out of a checkpoint.
	Restored bool `json:",omitempty"`
}

// snapshot is the key of its writable snapshot.
func (c *ctr) snapshot() string { return cmp.Or(c.Kept, c.ID) }

// stored is a record's file: the engine's own fields and the CRI's message.
type stored[T any] struct {
	Record T               `json:"record"`
	Config json.RawMessage `json:"config"`
}

// records are all sandboxes and containers, in memory and on disk. The names
// that the CRI gives (pod, container, attempt) are unique among them.
type records struct {
	log                   *slog.Logger
	sandboxDir, ctrDir    string
	mu                    sync.RWMutex
	sandboxes             *kept[sandbox]
	ctrs                  *kept[ctr]
	sandboxName, ctrNames map[string]string // name to ID
	// making are the IDs of what is being made: it has its name, and is in no list
	// yet.
	making map[string]bool
}

func openRecords(root string, log *slog.Logger) (*records, error) {
	r := &records{log: log, sandboxDir: filepath.Join(root, "sandboxes"), ctrDir: filepath.Join(root, "containers"),
		sandboxes:   newKept(func(s *sandbox) []string { return []string{podOf(s.Config.GetLabels()), keptPrefix(s.Config)} }),
		ctrs:        newKept(func(c *ctr) []string { return []string{podOf(c.Config.GetLabels()), inSandbox(c.SandboxID), c.Kept} }),
		sandboxName: map[string]string{}, ctrNames: map[string]string{}, making: map[string]bool{}}
	err := load(r.sandboxDir, func(id string, s *sandbox, config []byte) error {
		s.ID, s.Config = id, &rt.PodSandboxConfig{}
		if err := protojson.Unmarshal(config, s.Config); err != nil {
			return err
		}
		r.sandboxes.put(id, s)
		r.sandboxName[sandboxName(s.Config)] = id
		return nil
	}, log)
	if err != nil {
		return nil, err
	}
	return r, load(r.ctrDir, func(id string, c *ctr, config []byte) error {
		c.ID, c.Config = id, &rt.ContainerConfig{}
		if err := protojson.Unmarshal(config, c.Config); err != nil {
			return err
		}
		r.ctrs.put(id, c)
		r.ctrNames[containerName(c.SandboxID, c.Config)] = id
		return nil
	}, log)
}

// load reads every record of a directory. One that cannot be read is forgotten:
// the thing it stood for is then unknown, and cleared away as such.
func load[T any](dir string, take func(id string, v *T, config []byte) error, log *slog.Logger) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make engine state: %w", err)
	}
	if err := atomicfile.Clean(dir); err != nil {
		return fmt.Errorf("clean engine state: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read engine state: %w", err)
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !idForm.MatchString(id) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		var v stored[T]
		err := atomicfile.ReadJSON(path, &v)
		if err == nil {
			err = take(id, &v.Record, v.Config)
		}
		if err != nil {
			log.Warn("engine record is unreadable, forgetting it", "file", path, "error", err)
			if err := atomicfile.Remove(path); err != nil {
				return fmt.Errorf("forget an unreadable record: %w", err)
			}
		}
	}
	return nil
}

// keep is how long a record must last, and how it is written.
type keep func(path string, data []byte, perm os.FileMode) error

func save(dir, id string, record any, config proto.Message, write keep) error {
	raw, err := protojson.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode record %q: %w", id, err)
	}
	data, err := json.Marshal(stored[any]{record, raw})
	if err != nil {
		return fmt.Errorf("encode record %q: %w", id, err)
	}
	if err := write(filepath.Join(dir, id+".json"), data, 0o600); err != nil {
		return fmt.Errorf("write record %q: %w", id, err)
	}
	return nil
}

// forget removes a record; one that was never written is no error.
func forget(dir, id string) error {
	err := os.Remove(filepath.Join(dir, id+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// reserveSandbox makes s known under its name, in memory only.
func (r *records) reserveSandbox(s *sandbox) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := sandboxName(s.Config)
	if id, taken := r.sandboxName[name]; taken {
		return exists("sandbox name %q is taken by %q", name, id)
	}
	r.sandboxes.put(s.ID, s)
	r.sandboxName[name], r.making[s.ID] = s.ID, true
	return nil
}

// putSandbox writes a sandbox that is whole, or replaces its record. It does not wait for
// the disk: after a power cut no sandbox is ready, whatever its record says. One that has
// no record is cleared away at the next start.
func (r *records) putSandbox(s *sandbox) error {
	if err := save(r.sandboxDir, s.ID, s, s.Config, atomicfile.WriteSoon); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes.put(s.ID, s)
	return nil
}

// dropSandbox forgets a sandbox. One that a power cut brings back is not ready, and is
// removed again by whoever has had it removed.
func (r *records) dropSandbox(s *sandbox) error {
	if err := forget(r.sandboxDir, s.ID); err != nil {
		return fmt.Errorf("forget sandbox %q: %w", s.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sandboxes.drop(s.ID)
	delete(r.making, s.ID)
	delete(r.sandboxName, sandboxName(s.Config))
	return nil
}

// reserveContainer makes c known under its name, in memory only, if its sandbox
// is ready.
func (r *records) reserveContainer(c *ctr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.sandboxes.all[c.SandboxID]; s == nil || !s.Ready {
		return precondition("sandbox %q is not ready", c.SandboxID)
	}
	name := containerName(c.SandboxID, c.Config)
	if id, taken := r.ctrNames[name]; taken {
		return exists("container name %q is taken by %q", name, id)
	}
	r.ctrs.put(c.ID, c)
	r.ctrNames[name], r.making[c.ID] = c.ID, true
	return nil
}

// createContainer writes a reserved container. It does not wait for the disk: what runs
// has not survived a power cut, and what has ended is remembered by an exit that is durable,
// and was written later. Without a record it was never made, and its agent makes it again.
func (r *records) createContainer(c *ctr) error { return r.writeContainer(c, atomicfile.WriteSoon) }

// putContainer replaces a container's record durably.
func (r *records) putContainer(c *ctr) error { return r.writeContainer(c, atomicfile.Write) }

func (r *records) writeContainer(c *ctr, write keep) error {
	if err := save(r.ctrDir, c.ID, c, c.Config, write); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctrs.put(c.ID, c)
	return nil
}

// dropContainer forgets a container, as dropSandbox does.
func (r *records) dropContainer(c *ctr) error {
	if err := forget(r.ctrDir, c.ID); err != nil {
		return fmt.Errorf("forget container %q: %w", c.ID, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctrs.drop(c.ID)
	delete(r.making, c.ID)
	delete(r.ctrNames, containerName(c.SandboxID, c.Config))
	return nil
}

// sandbox finds by ID or by an unambiguous beginning of one; nil is "none".
func (r *records) sandbox(id string) *sandbox {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return lookup(r.sandboxes.all, id)
}

// container finds like sandbox.
func (r *records) container(id string) *ctr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return lookup(r.ctrs.all, id)
}

func lookup[T any](m map[string]*T, id string) *T {
	if v := m[id]; v != nil || id == "" || len(id) >= idLength {
		return v
	}
	var found *T
	for full, v := range m {
		if !strings.HasPrefix(full, id) {
			continue
		}
		if found != nil {
			return nil
		}
		found = v
	}
	return found
}

// made ends the time in which id is in no list; whether it is whole or a ruin
// is for its state to say.
func (r *records) made(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.making, id)
}

// allSandboxes lists the newest first.
func (r *records) allSandboxes() []*sandbox {
	return r.sandboxesThat("", func(*sandbox) bool { return true })
}

// sandboxesThat lists those of a group, or all, that want picks, newest first.
func (r *records) sandboxesThat(group string, want func(*sandbox) bool) []*sandbox {
	r.mu.RLock()
	defer r.mu.RUnlock()
	out := pick(r.sandboxes.in(group), r.making, want)
	slices.SortFunc(out, func(a, b *sandbox) int { return newest(a.CreatedAt, b.CreatedAt, a.ID, b.ID) })
	return out
}

// allContainers lists the newest first.
func (r *records) allContainers() []*ctr {
	return r.containersThat("", func(*ctr) bool { return true })
}

// containersThat lists those of a group, or all, that want picks, newest first.
func (r *records) containersThat(group string, want func(*ctr) bool) []*ctr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return byAge(pick(r.ctrs.in(group), r.making, want))
}

// containersOf are the containers of a sandbox, newest first.
func (r *records) containersOf(sandboxID string) []*ctr {
	return r.containersThat(inSandbox(sandboxID), func(*ctr) bool { return true })
}

// everyContainerOf has those among them that are being made.
func (r *records) everyContainerOf(sandboxID string) []*ctr {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return byAge(pick(r.ctrs.in(inSandbox(sandboxID)), nil, func(*ctr) bool { return true }))
}

// sharing are the other containers that have a container's kept snapshot, and whether one
// of them is only being made.
func (r *records) sharing(c *ctr) (others []*ctr, making bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	others = pick(r.ctrs.in(c.Kept), nil, func(o *ctr) bool { return o.ID != c.ID })
	return others, slices.ContainsFunc(others, func(o *ctr) bool { return r.making[o.ID] })
}

// pick lists what is wanted and not hidden.
func pick[T any](from map[string]*T, hidden map[string]bool, want func(*T) bool) (out []*T) {
	for id, v := range from {
		if want(v) && !hidden[id] {
			out = append(out, v)
		}
	}
	return out
}

func byAge(list []*ctr) []*ctr {
	slices.SortFunc(list, func(a, b *ctr) int { return newest(a.CreatedAt, b.CreatedAt, a.ID, b.ID) })
	return list
}

func newest(a, b int64, idA, idB string) int {
	if a != b {
		return int(min(1, max(-1, b-a)))
	}
	return strings.Compare(idA, idB)
}

const idLength = 64

func newID() string {
	b := make([]byte, idLength/2)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func sandboxName(c *rt.PodSandboxConfig) string {
	m := c.GetMetadata()
	return fmt.Sprintf("%s_%s_%s_%d", m.GetNamespace(), m.GetName(), m.GetUid(), m.GetAttempt())
}

func containerName(sandboxID string, c *rt.ContainerConfig) string {
	return fmt.Sprintf("%s_%s_%d", sandboxID, c.GetMetadata().GetName(), c.GetMetadata().GetAttempt())
}

func podName(c *rt.PodSandboxConfig) string {
	return c.GetMetadata().GetNamespace() + "/" + c.GetMetadata().GetName()
}
