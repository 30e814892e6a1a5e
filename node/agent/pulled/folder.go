package pulled

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/node/agent/keyring"
)

// What the files say they are. Those of the version before have the same form.
const (
	apiVersion = "kubelet.config.k8s.io/v1beta1"
	apiBefore  = "kubelet.config.k8s.io/v1alpha1"
	intentKind = "ImagePullIntent"
	recordKind = "ImagePulledRecord"
)

// filePrefix begins the names of records.
const filePrefix = "sha256-"

// maxRecord bounds a file that is read, in bytes.
const maxRecord = 4 << 20

// folder has one file for each name, which the file's own name tells by its hash.
type folder string

func (f folder) path(name string) string {
	return filepath.Join(string(f), fmt.Sprintf("%s%x", filePrefix, sha256.Sum256([]byte(name))))
}

func (f folder) write(name string, content []byte) error {
	if err := os.MkdirAll(string(f), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(f.path(name), content, 0o600)
}

func (f folder) remove(name string) error { return atomicfile.Remove(f.path(name)) }

// list returns the content of all files by their paths, nil of what can't be read.
func (f folder) list(log *slog.Logger) map[string][]byte {
	entries, err := os.ReadDir(string(f))
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("can't read records of images", "err", err)
		}
		return nil
	}
	all := map[string][]byte{}
	for _, e := range entries {
		if e.IsDir() || !strings.HasPrefix(e.Name(), filePrefix) || strings.Contains(e.Name(), ".tmp") {
			continue
		}
		path := filepath.Join(string(f), e.Name())
		all[path] = nil
		if info, err := e.Info(); err != nil || info.Size() > maxRecord {
			continue
		}
		if raw, err := os.ReadFile(path); err == nil {
			all[path] = raw
		}
	}
	return all
}

func encodeIntent(image string) []byte {
	return encode(&kubeletv1beta1.ImagePullIntent{TypeMeta: metav1.TypeMeta{APIVersion: apiVersion, Kind: intentKind}, Image: image})
}

func encodeRecord(r *record) []byte { return encode(r) }

// encode can't fail: all that records hold is text.
func encode(v any) []byte {
	raw, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(raw, '\n')
}

func decodeIntent(raw []byte) (*kubeletv1beta1.ImagePullIntent, error) {
	intent := &kubeletv1beta1.ImagePullIntent{}
	return intent, decode(raw, intent, &intent.TypeMeta, intentKind)
}

func decodeRecord(raw []byte) (*record, error) {
	r := &record{}
	return r, decode(raw, r, &r.TypeMeta, recordKind)
}

func decode(raw []byte, into any, is *metav1.TypeMeta, kind string) error {
	if err := json.Unmarshal(raw, into); err != nil {
		return err
	}
	if is.Kind != kind || !slices.Contains([]string{apiVersion, apiBefore}, is.APIVersion) {
		return fmt.Errorf("is a %s %s, want %s %s", is.APIVersion, is.Kind, apiVersion, kind)
	}
	return nil
}

// full is the whole name of an image, with its tag or digest, for comparisons.
func full(image string) string {
	repository, err := keyring.Repository(image)
	if err != nil {
		return image
	}
	rest := strings.TrimPrefix(image, keyring.Bare(image))
	if rest == "" {
		rest = ":latest"
	}
	return repository + rest
}
