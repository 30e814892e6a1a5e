// Package static reads pods from a directory of manifests, or from one file: the
// pods that a node runs whoever else is there, such as those of a control plane.
// Their names end with the node's, their identity is a hash of the manifest, so
// that a changed manifest is another pod; they tolerate every NoExecute taint.
// All that is upstream's rule (kubelet's config package). What is wrong with a
// manifest is logged, and its pod doesn't run; the others do.
package static

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/node/agent/inotify"
)

// Annotations of static pods and their mirrors.
const (
	AnnotationHash   = "kubernetes.io/config.hash"
	AnnotationSource = "kubernetes.io/config.source"
	AnnotationSeen   = "kubernetes.io/config.seen"
	// AnnotationMirror marks the object by which the API shows a static pod; its
	// value is the static pod's hash.
	AnnotationMirror = corev1.MirrorPodAnnotationKey
)

// The values of AnnotationSource.
const (
	sourceFile = "file"
	sourceURL  = "http"
	sourceAPI  = "api"
)

// Limits of what is read.
const (
	maxManifest = 10 << 20 // upstream's
	maxPods     = 1024
)

// settle is how long a directory must be quiet before it is read, so that a file
// that is being written is read once.
const settle = 50 * time.Millisecond

// Config is what Run needs.
type Config struct {
	// Path is a directory of manifests, or one manifest.
	Path     string
	NodeName string
	// Every is how often the path is read though nothing seems to have changed.
	Every time.Duration
	// Prepare fills in the API's defaults and validates; nil does neither.
	Prepare func(*corev1.Pod) error
	// Poll leaves noticing changes to Every alone.
	Poll bool
	Log  *slog.Logger
}

// IsMirror says whether an API object only shows a static pod.
func IsMirror(pod *corev1.Pod) bool {
	_, ok := pod.Annotations[AnnotationMirror]
	return ok
}

// Is says whether a pod is a static one, as opposed to the API's.
func Is(pod *corev1.Pod) bool {
	from := pod.Annotations[AnnotationSource]
	return (from == sourceFile || from == sourceURL) && !IsMirror(pod)
}

// FromAPI is the API's pod as one that Is is false of. Where a pod comes from isn't its
// author's to say: whoever may make pods could otherwise have one that is admitted as the
// node's own, whatever its node is kept for, and is never put out.
func FromAPI(pod *corev1.Pod) *corev1.Pod {
	if pod == nil || IsMirror(pod) {
		return pod
	}
	if said, ok := pod.Annotations[AnnotationSource]; !ok || said == sourceAPI {
		return pod
	}
	own := *pod // what the API's cache has is others' too
	own.Annotations = maps.Clone(pod.Annotations)
	own.Annotations[AnnotationSource] = sourceAPI
	return &own
}

// source remembers what it said last.
type source struct {
	Config
	// seen is when a pod was first read, by hash; faults are the errors told of,
	// by file, so that they are told once.
	seen   map[types.UID]string
	faults map[string]string
	// from are the files of the pods that were read last; left are the pods of those
	// whose file has gone since, though it may be back.
	from map[types.UID]string
	left map[types.UID]bool
	// url is where the pods come from, "" for files.
	url string
}

func newSource(cfg Config) *source {
	return &source{Config: cfg, seen: map[types.UID]string{}, faults: map[string]string{}, left: map[types.UID]bool{}}
}

// Run reads the pods and tells changed of all of them, at once and after each
// change, until ctx ends. A pod whose file went and came back in between is left out
// once, first: it has ended, and begins anew. The slice is the receiver's, and so are
// the pods, which may be in the slice before.
func Run(ctx context.Context, cfg Config, changed func([]*corev1.Pod)) error {
	s := newSource(cfg)
	watcher, events := s.watch()
	defer func() {
		if watcher != nil {
			watcher.Close()
		}
	}()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-events:
			if !open || e.Mask&inotify.Ignored != 0 {
				s.leave(s.Path)
				events = nil // the directory, or the one file, went away; it may come back
				continue
			}
			if e.Mask&(inotify.Delete|inotify.MovedFrom) != 0 {
				s.leave(filepath.Join(s.Path, e.Name))
			}
			if !strings.HasPrefix(e.Name, ".") {
				timer.Reset(settle)
			}
		case <-timer.C:
			timer.Reset(s.Every)
			if pods, ok := s.read(); ok {
				if stayed := s.stayed(pods); len(stayed) < len(pods) {
					changed(stayed)
				}
				changed(pods)
			}
			if events == nil && !s.Poll {
				if watcher != nil {
					watcher.Close()
				}
				if watcher, events = s.watch(); events != nil {
					timer.Reset(settle) // what changed between reading and watching
				}
			}
		}
	}
}

// watch follows the directory that holds the manifests. Nil means that it can't
// be followed now.
func (s *source) watch() (*inotify.Watcher, <-chan inotify.Event) {
	if s.Poll {
		return nil, nil
	}
	w, err := inotify.Open()
	if err != nil {
		s.Log.Warn("static pods are looked for only now and then", "err", err)
		return nil, nil
	}
	if _, err := w.Add(s.Path, inotify.Modify|inotify.Create|inotify.MovedTo|inotify.MovedFrom|inotify.Delete|inotify.CloseWrite); err != nil {
		w.Close()
		return nil, nil
	}
	return w, w.Events()
}

// leave notes that the file of a pod is there no more, if it was.
func (s *source) leave(path string) {
	for uid, from := range s.from {
		if from == path {
			s.left[uid] = true
		}
	}
}

// stayed are those whose file was there all the time.
func (s *source) stayed(pods []*corev1.Pod) []*corev1.Pod {
	left := s.left
	s.left = map[types.UID]bool{}
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return left[p.UID] })
}

// read is the pods of now; false means that it can't be told, and the old ones
// stand.
func (s *source) read() ([]*corev1.Pod, bool) {
	files, err := s.files()
	if errors.Is(err, fs.ErrNotExist) {
		s.tell(s.Path, err)
		s.from = nil
		return nil, true
	}
	if err != nil {
		s.tell(s.Path, err)
		return nil, false
	}
	s.tell(s.Path, nil)
	var pods []*corev1.Pod
	names := map[types.NamespacedName]string{}
	s.from = map[types.UID]string{}
	for _, path := range files {
		pod, err := s.pod(path)
		if err == nil && pod != nil {
			key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
			if other, taken := names[key]; taken {
				err = fmt.Errorf("pod %q is in %q already", key, other)
			} else {
				names[key], s.from[pod.UID] = path, path
				pods = append(pods, pod)
			}
		}
		s.tell(path, err)
	}
	return pods, true
}

// tell logs what is wrong with a file when it is news.
func (s *source) tell(path string, err error) {
	if err == nil {
		delete(s.faults, path)
		return
	}
	if s.faults[path] != err.Error() {
		s.faults[path] = err.Error()
		s.Log.Error("static pods: can't use this", "path", path, "err", err)
	}
}

func (s *source) files() ([]string, error) {
	info, err := os.Stat(s.Path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		return []string{s.Path}, nil
	}
	entries, err := os.ReadDir(s.Path)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			list = append(list, filepath.Join(s.Path, e.Name()))
		}
	}
	if len(list) > maxPods {
		return nil, fmt.Errorf("has more than %d files", maxPods)
	}
	slices.Sort(list)
	return list, nil
}

// pod reads one manifest; nil without an error is for what isn't one.
func (s *source) pod(path string) (*corev1.Pod, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("is no file"))
	}
	data, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxManifest {
		return nil, fmt.Errorf("is larger than %d bytes", maxManifest)
	}
	pod := &corev1.Pod{}
	if err := yaml.Unmarshal(data, pod); err != nil {
		return nil, fmt.Errorf("couldn't parse as pod: %w", err)
	}
	if pod.Kind != "Pod" || pod.APIVersion != "v1" {
		return nil, fmt.Errorf("couldn't parse as pod: it is a %q of %q", pod.Kind, pod.APIVersion)
	}
	if pod.Name == "" {
		return nil, errors.New("invalid pod: name is needed for the pod")
	}
	return pod, s.complete(pod, path)
}

// complete makes the pod this node's.
func (s *source) complete(pod *corev1.Pod, path string) error {
	if pod.UID == "" {
		data, err := yaml.Marshal(pod)
		if err != nil {
			return err
		}
		sum := fnv.New128a()
		if s.url == "" {
			fmt.Fprintf(sum, "%shost:%sfile:%s", data, s.NodeName, path)
		} else {
			fmt.Fprintf(sum, "%surl:%s", data, path)
		}
		pod.UID = types.UID(hex.EncodeToString(sum.Sum(nil)))
	}
	pod.Name += "-" + strings.ToLower(s.NodeName)
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = s.NodeName
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	if s.seen[pod.UID] == "" {
		s.seen[pod.UID] = time.Now().Format(time.RFC3339Nano)
	}
	pod.Annotations[AnnotationHash] = string(pod.UID)
	pod.Annotations[AnnotationSource] = sourceFile
	if s.url != "" {
		pod.Annotations[AnnotationSource] = sourceURL
	}
	pod.Annotations[AnnotationSeen] = s.seen[pod.UID]
	delete(pod.Annotations, AnnotationMirror)
	if s.url == "" { // upstream's tolerance is that of files
		tolerate(pod)
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	pod.DeletionTimestamp, pod.ResourceVersion, pod.CreationTimestamp = nil, "", metav1.Time{}
	if what := reference(pod); what != "" {
		return fmt.Errorf("static pods may not reference %s", what)
	}
	if s.Prepare == nil {
		return nil
	}
	if err := s.Prepare(pod); err != nil {
		return fmt.Errorf("invalid pod: %w", err)
	}
	return nil
}

// tolerate keeps the pod where it is, whatever is wrong with the node.
func tolerate(pod *corev1.Pod) {
	all := corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	if !slices.ContainsFunc(pod.Spec.Tolerations, func(t corev1.Toleration) bool { return t.MatchToleration(&all) }) {
		pod.Spec.Tolerations = append(pod.Spec.Tolerations, all)
	}
}
