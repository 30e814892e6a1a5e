// Package pulled remembers with whose credentials a node's images were pulled, and
// so which pods may use what is there already: one that could not have pulled an
// image itself gets no use of it by another's doing. The rules and the files are the
// kubelet's (image_manager below its directory), so that either can go on from the
// other's.
//
// What is about to be pulled is written down before, and what has been pulled after:
// an image that came while the power went is known not to be one that was brought by
// hand.
package pulled

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/keyring"
)

// What a check came to, in the kubelet's words for its metric.
const (
	PolicyAllows = "credentialPolicyAllowed"
	RecordFound  = "credentialRecordFound"
	Authenticate = "mustAuthenticate"
	Failed       = "error"
)

// maxSecrets is from how many secrets of a record on no more are added by pods that
// only use the image.
const maxSecrets = 100

type (
	record      = kubeletv1beta1.ImagePulledRecord
	credentials = kubeletv1beta1.ImagePullCredentials
	secret      = kubeletv1beta1.ImagePullSecret
	account     = kubeletv1beta1.ImagePullServiceAccount
)

// Directory is where the records are below a kubelet's.
const Directory = "image_manager"

// Config is what New needs.
type Config struct {
	// Dir is the kubelet's directory; the records are in image_manager below it.
	Dir string
	// Policy is the configuration's imagePullCredentialsVerificationPolicy, and Allow
	// its preloadedImagesVerificationAllowlist.
	Policy kubeletv1beta1.ImagePullCredentialsVerificationPolicy
	Allow  []string
	// Checked is told what each check came to; it may be nil.
	Checked func(result string)
	Log     *slog.Logger
}

// Records may be used from any goroutine.
type Records struct {
	cfg    Config
	verify func(image string, known bool) bool
	pulls  folder
	images folder

	mu   sync.Mutex
	read bool
	// intents are how often an image is being pulled; 0 is one that an agent before
	// this one began. known are the records by the engine's ID of an image.
	intents map[string]int
	known   map[string]*record
	// broken are files that can't be read: what they are of was pulled, nobody knows
	// with what.
	broken map[string]bool
}

// New checks the configuration. Nothing is read before the first question, and
// nothing is made before the first pull.
func New(cfg Config) (*Records, error) {
	verify, err := policy(cfg.Policy, cfg.Allow)
	if err != nil {
		return nil, err
	}
	if cfg.Checked == nil {
		cfg.Checked = func(string) {}
	}
	dir := filepath.Join(cfg.Dir, Directory)
	return &Records{cfg: cfg, verify: verify, pulls: folder(filepath.Join(dir, "pulling")), images: folder(filepath.Join(dir, "pulled"))}, nil
}

// load reads what there is, once; r.mu is held.
func (r *Records) load() {
	if r.read {
		return
	}
	r.read, r.intents, r.known, r.broken = true, map[string]int{}, map[string]*record{}, map[string]bool{}
	for path, raw := range r.pulls.list(r.cfg.Log) {
		intent, err := decodeIntent(raw)
		if err != nil {
			r.broken[path] = true
			r.cfg.Log.Warn("can't read a record of a pull", "file", path, "err", err)
			continue
		}
		r.intents[intent.Image] = 0
	}
	for path, raw := range r.images.list(r.cfg.Log) {
		known, err := decodeRecord(raw)
		if err != nil {
			r.broken[path] = true
			r.cfg.Log.Warn("can't read a record of an image", "file", path, "err", err)
			continue
		}
		r.known[known.ImageRef] = known
	}
}

// Sizes are how many pulls and images are on record.
func (r *Records) Sizes() (pulls, images int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	return len(r.intents), len(r.known)
}

// Begin notes that an image is about to be pulled. End follows it.
func (r *Records) Begin(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	if _, known := r.intents[image]; !known {
		if err := r.pulls.write(image, encodeIntent(image)); err != nil {
			return fmt.Errorf("failed to record image pull intent: %w", err)
		}
	}
	r.intents[image]++
	return nil
}

// End follows Begin: id is the engine's of the image, and by what it was pulled with,
// nil for nothing at all; id is "" when it wasn't pulled.
func (r *Records) End(image, id string, by *keyring.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id != "" {
		if err := r.add(image, id, credentialsOf(by)); err != nil {
			// The intent stays: that the image was pulled is known, and by whom is asked.
			r.cfg.Log.Warn("can't write with what an image was pulled", "image", image, "err", err)
			r.intents[image]--
			return
		}
	}
	if r.intents[image]--; r.intents[image] > 0 {
		return
	}
	if err := r.pulls.remove(image); err != nil {
		r.cfg.Log.Warn("can't remove the record of a pull", "image", image, "err", err)
		return
	}
	delete(r.intents, image)
	delete(r.broken, r.pulls.path(image))
}

// Used notes that a pod has waited for a pull that another began, with credentials of
// its own that are as good.
func (r *Records) Used(image, id string, by *keyring.Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	if err := r.add(image, id, credentialsOf(by)); err != nil {
		r.cfg.Log.Warn("can't write with what an image was pulled", "image", image, "err", err)
	}
}

// Resume turns the pulls that an agent before this one began, and whose images came,
// into records without credentials: whoever wants the image shows his own.
func (r *Records) Resume(images func() ([]*rt.Image, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	if len(r.intents) == 0 {
		return
	}
	list, err := images()
	if err != nil {
		r.cfg.Log.Warn("can't list images", "err", err)
		return
	}
	begun := map[string]string{}
	for image := range r.intents {
		begun[full(image)] = image
	}
	for _, i := range list {
		for _, name := range slices.Concat(i.GetRepoTags(), i.GetRepoDigests()) {
			image, ok := begun[full(name)]
			if !ok {
				continue
			}
			err := r.add(image, i.GetId(), nil)
			if err == nil {
				err = r.pulls.remove(image)
			}
			if err != nil {
				r.cfg.Log.Warn("can't write down that an image was pulled", "image", image, "err", err)
				continue
			}
			delete(r.intents, image)
			delete(begun, full(name))
		}
	}
}

// Held says whether an image that is there, with the engine's ID, is held back from
// a pod until it has pulled it with its own credentials. keys are asked for only when
// they matter.
func (r *Records) Held(image, id string, keys func() ([]keyring.Key, error)) (bool, error) {
	r.mu.Lock()
	r.load()
	known := r.known[id]
	_, begun := r.intents[image]
	begun = begun || r.broken[r.images.path(id)] || r.broken[r.pulls.path(image)]
	r.mu.Unlock()
	if !r.verify(image, known != nil || begun) {
		r.cfg.Checked(PolicyAllows)
		return false, nil
	}
	if known == nil {
		r.cfg.Checked(Authenticate)
		return true, nil
	}
	by := known.CredentialMapping[keyring.Bare(image)] // a record is never changed, only replaced
	switch {
	case by.NodePodsAccessible:
		r.cfg.Checked(RecordFound)
		return false, nil
	case len(by.KubernetesSecrets) == 0 && len(by.KubernetesServiceAccounts) == 0:
		r.cfg.Checked(Authenticate)
		return true, nil
	}
	mine, err := keys()
	if err != nil {
		r.cfg.Checked(Failed)
		return true, err
	}
	if r.opens(image, id, by, mine) {
		r.cfg.Checked(RecordFound)
		return false, nil
	}
	r.cfg.Checked(Authenticate)
	return true, nil
}

// opens says whether one of a pod's keys is one with which the image was pulled: the
// same credentials, the same Secret though it has others by now, or the same
// ServiceAccount. What is not yet on record of a Secret is added.
func (r *Records) opens(image, id string, by credentials, mine []keyring.Key) bool {
	asked := false
	for i := range mine {
		key := &mine[i]
		if s := key.ServiceAccount; s != nil && !asked {
			asked = true // a pod has one account
			if slices.Contains(by.KubernetesServiceAccounts, account{Namespace: s.Namespace, Name: s.Name, UID: s.UID}) {
				return true
			}
		}
		if key.Secret == nil {
			continue
		}
		own := secretOf(key)
		few := len(by.KubernetesSecrets) < maxSecrets
		for _, s := range by.KubernetesSecrets {
			same := s.Namespace == own.Namespace && s.Name == own.Name && s.UID == own.UID
			equal := s.CredentialHash != "" && s.CredentialHash == own.CredentialHash
			if !equal && !(same && few) {
				continue
			}
			if !(equal && same) && few {
				r.mu.Lock()
				err := r.add(image, id, credentialsOf(key))
				r.mu.Unlock()
				if err != nil {
					r.cfg.Log.Warn("can't write with what an image may be used", "image", image, "err", err)
				}
			}
			return true
		}
	}
	return false
}

// Prune forgets the images that are gone: those that are not among the IDs, and were
// not pulled since the IDs were asked for.
func (r *Records) Prune(ids map[string]bool, asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.load()
	for id, known := range r.known {
		if ids[id] || !known.LastUpdatedTime.Time.Before(asked.Truncate(time.Second)) {
			continue // the file's time has whole seconds
		}
		if err := r.images.remove(id); err != nil {
			r.cfg.Log.Warn("can't remove the record of an image", "image", id, "err", err)
			continue
		}
		delete(r.known, id)
	}
}

// add writes with what an image was pulled, if that is news; r.mu is held. nil is
// nobody knows what.
func (r *Records) add(image, id string, by *credentials) error {
	old, name := r.known[id], keyring.Bare(image)
	next := &record{
		TypeMeta:        metav1.TypeMeta{APIVersion: apiVersion, Kind: recordKind},
		LastUpdatedTime: metav1.Now(), ImageRef: id, CredentialMapping: map[string]credentials{},
	}
	if old != nil {
		maps.Copy(next.CredentialMapping, old.CredentialMapping)
	}
	if by != nil {
		had, ok := next.CredentialMapping[name]
		merged, changed := merge(had, *by)
		if ok && !changed {
			return nil
		}
		next.CredentialMapping[name] = merged
	} else if old != nil {
		return nil
	}
	if err := r.images.write(id, encodeRecord(next)); err != nil {
		return err
	}
	r.known[id] = next
	delete(r.broken, r.images.path(id))
	return nil
}

// merge adds credentials to others: what everybody may have makes all else moot.
func merge(had, more credentials) (credentials, bool) {
	if had.NodePodsAccessible || more.NodePodsAccessible {
		return credentials{NodePodsAccessible: true}, !had.NodePodsAccessible
	}
	changed := false
	out := credentials{KubernetesSecrets: slices.Clone(had.KubernetesSecrets), KubernetesServiceAccounts: slices.Clone(had.KubernetesServiceAccounts)}
	for _, s := range more.KubernetesSecrets {
		at := slices.IndexFunc(out.KubernetesSecrets, func(o secret) bool { return compareSecrets(o, s) == 0 })
		switch {
		case at < 0:
			out.KubernetesSecrets, changed = append(out.KubernetesSecrets, s), true
		case out.KubernetesSecrets[at] != s:
			out.KubernetesSecrets[at], changed = s, true
		}
	}
	for _, a := range more.KubernetesServiceAccounts {
		if !slices.Contains(out.KubernetesServiceAccounts, a) {
			out.KubernetesServiceAccounts, changed = append(out.KubernetesServiceAccounts, a), true
		}
	}
	slices.SortFunc(out.KubernetesSecrets, compareSecrets)
	slices.SortFunc(out.KubernetesServiceAccounts, func(a, b account) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
	})
	return out, changed
}

func compareSecrets(a, b secret) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}

func secretOf(key *keyring.Key) secret {
	return secret{Namespace: key.Secret.Namespace, Name: key.Secret.Name, UID: key.Secret.UID, CredentialHash: key.Hash()}
}

// credentialsOf is what a key is on record as: the node's own, and none, are
// everybody's.
func credentialsOf(key *keyring.Key) *credentials {
	switch {
	case key != nil && key.Secret != nil:
		return &credentials{KubernetesSecrets: []secret{secretOf(key)}}
	case key != nil && key.ServiceAccount != nil:
		s := key.ServiceAccount
		return &credentials{KubernetesServiceAccounts: []account{{Namespace: s.Namespace, Name: s.Name, UID: s.UID}}}
	}
	return &credentials{NodePodsAccessible: true}
}
