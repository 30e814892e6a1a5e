package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/actual"
	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Collectors of logs find them by links in one directory, whose names say whose a log is:
// POD_NAMESPACE_CONTAINER-ID.log. With the logs in /var/log/pods (podLogsDir) that is
// /var/log/containers, where upstream's kubelet has it.

// maxName is the longest name of a file.
const maxName = 255

// linkDir is the directory of the links to logs below root.
func linkDir(root string) string { return filepath.Join(filepath.Dir(root), "containers") }

// linkName is the name of the link to a container's log.
func linkName(pod, namespace, container, id string) string {
	const end = ".log"
	name := fmt.Sprintf("%s_%s_%s-%s", pod, namespace, container, id)
	return name[:min(len(name), maxName-len(end))] + end
}

// link makes the link to the log of a container that has been started, if its engine has
// made the log.
func (a *Agent) link(pod *corev1.Pod, container, id string, attempt int32) {
	target := filepath.Join(a.node.LogDirectory(pod), spec.LogPath(container, attempt))
	if _, err := os.Lstat(target); err != nil {
		return
	}
	dir := linkDir(a.cfg.LogRoot)
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.Symlink(target, filepath.Join(dir, linkName(pod.Name, pod.Namespace, container, id)))
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		a.cfg.Log.Warn("collectors of logs will not find a container's", "pod", pod.Name, "namespace", pod.Namespace, "container", container, "err", err)
	}
}

// unlink removes the link of a container that has been removed.
func (a *Agent) unlink(pod, namespace, container, id string) {
	_ = os.Remove(filepath.Join(linkDir(a.cfg.LogRoot), linkName(pod, namespace, container, id))) // it may never have been
}

func (a *Agent) unlinkListed(c *rt.Container) {
	l := c.GetLabels()
	a.unlink(l[actual.LabelPodName], l[actual.LabelPodNamespace], l[actual.LabelContainerName], c.GetId())
}

// sweepLinks removes the links to logs below root that are gone, or with all set any.
// Links to elsewhere are somebody else's.
func sweepLinks(root string, all bool) error {
	dir := linkDir(root)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		target, readErr := os.Readlink(path)
		if readErr != nil || !strings.HasPrefix(target, root+"/") {
			continue
		}
		if _, gone := os.Lstat(target); all || errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, os.Remove(path))
		}
	}
	return err
}

// pointTo makes usual a link to the directory where the logs are, if that is another. Logs
// of before, at the usual place, stay there.
func pointTo(usual, logs string) error {
	old, err := os.Readlink(usual)
	if err == nil && old != logs {
		err = os.Remove(usual)
	}
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil //nolint:nilerr // no link: the logs are there, or were
	case usual == logs:
		return os.MkdirAll(logs, 0o755)
	case err == nil && old == logs:
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(usual), 0o755); err != nil {
		return err
	}
	return os.Symlink(logs, usual)
}

// purgeLogs removes the logs of pods, and the links to them. Of logs that are elsewhere
// only those of these pods go: others may have theirs there.
func purgeLogs(usual string, uids []string) error {
	logs, err := os.Readlink(usual)
	if err != nil { // no link
		return errors.Join(sweepLinks(usual, true), os.RemoveAll(usual), removeDir(linkDir(usual)))
	}
	var failed []error
	for _, uid := range uids {
		dirs, _ := filepath.Glob(filepath.Join(logs, "*_*_"+uid))
		for _, dir := range dirs {
			failed = append(failed, os.RemoveAll(dir))
		}
	}
	return errors.Join(errors.Join(failed...), sweepLinks(logs, false), os.Remove(usual))
}
