package engine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/container/plan/overlay"
	"github.com/sampan-dev/sampan/node/engine/spec"
)

const (
	// maxAccountFile bounds an image's /etc/passwd and /etc/group, in bytes.
	maxAccountFile = 1 << 20
	// maxLooks is how often a file of an image is looked for while mounts change.
	maxLooks = 128
	// maxAccounts is how many images' accounts are remembered.
	maxAccounts = 128
)

// accounts remembers the users and groups of images: an image's content never
// changes, and its ID names its content.
type accounts struct {
	mu    sync.Mutex
	known map[string]spec.Accounts
}

func (a *accounts) of(imageID string, lower []string) (spec.Accounts, error) {
	a.mu.Lock()
	got, ok := a.known[imageID]
	a.mu.Unlock()
	if ok {
		return got, nil
	}
	got, err := readAccounts(lower)
	if err != nil {
		return spec.Accounts{}, fmt.Errorf("read the accounts of image %q: %w", imageID, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known == nil || len(a.known) >= maxAccounts {
		a.known = map[string]spec.Accounts{}
	}
	a.known[imageID] = got
	return got, nil
}

// readAccounts looks at the united layers through a mount that is attached
// nowhere, and resolves every path within it: a symbolic link in an image must
// not lead to the host's files.
func readAccounts(lower []string) (spec.Accounts, error) {
	root, err := openLayers(lower)
	if err != nil {
		return spec.Accounts{}, err
	}
	defer unix.Close(root)
	return accountsIn(root)
}

// accountsIn reads the accounts below root, which nothing there can leave.
func accountsIn(root int) (spec.Accounts, error) {
	passwd, err := readWithin(root, "etc/passwd")
	if err != nil {
		return spec.Accounts{}, err
	}
	group, err := readWithin(root, "etc/group")
	return spec.ParseAccounts(passwd, group), err
}

// openLayers opens a single layer as it is. Its whiteouts are no matter: they
// cannot be followed.
func openLayers(lower []string) (int, error) {
	if len(lower) == 1 {
		return openDir(lower[0])
	}
	if !overlay.Appends() {
		return openNamed(lower)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("open overlay: %w", err)
	}
	defer unix.Close(fs)
	for _, dir := range lower {
		if err := unix.FsconfigSetString(fs, "lowerdir+", dir); err != nil {
			return -1, fmt.Errorf("add layer %q to an overlay: %w", dir, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("make overlay: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return -1, fmt.Errorf("mount overlay: %w", err)
	}
	return root, nil
}

// openNamed is for kernels where an overlay of many layers needs a name: it has one in
// a mount namespace of its own, which ends with the thread that made it.
func openNamed(lower []string) (int, error) {
	type opened struct {
		fd  int
		err error
	}
	got := make(chan opened, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread is of no more use
		fd, err := mountPrivately(lower)
		got <- opened{fd, err}
	}()
	o := <-got
	return o.fd, o.err
}

func mountPrivately(lower []string) (int, error) {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return -1, fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return -1, fmt.Errorf("make all mounts private: %w", err)
	}
	// Over one of the layers, which nobody else sees.
	if err := (overlay.Layers{Lower: lower}).Mount(lower[0], unix.MS_RDONLY|unix.MS_NODEV|unix.MS_NOSUID|unix.MS_NOEXEC); err != nil {
		return -1, err
	}
	return openDir(lower[0])
}

func openDir(dir string) (int, error) {
	return unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// readWithin reads a regular file below root; nil when there is none.
func readWithin(root int, path string) ([]byte, error) {
	how := &unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(root, path, how)
	for tries := 1; errors.Is(err, unix.EAGAIN) && tries < maxLooks; tries++ {
		// Somewhere a mount or a rename came between: the kernel asks to try again.
		fd, err = unix.Openat2(root, path, how)
	}
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("open %q: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxAccountFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", path, err)
	}
	if len(raw) > maxAccountFile {
		return nil, fmt.Errorf("read %q: it has more than %d bytes: %w", path, maxAccountFile, spec.ErrInvalid)
	}
	return raw, nil
}
