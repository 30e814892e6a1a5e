package volume

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Bundles lists every ClusterTrustBundle. The objects are shared and read-only.
type Bundles func(ctx context.Context) ([]*certificatesv1.ClusterTrustBundle, error)

// CertificateRequest names one podCertificate source of a pod's volumes.
type CertificateRequest struct {
	Volume string
	// Source is its index in the volume's list of sources.
	Source int
	*corev1.PodCertificateProjection
}

// Credential is a private key with the certificate chain issued for it, as PEM.
type Credential struct {
	Key, Chain []byte
	// Renew is when to ask again.
	Renew time.Time
}

// Certificates gives the credential of a podCertificate source. It fails while
// none has been issued; the pod is prepared again once there is one.
type Certificates func(ctx context.Context, pod *corev1.Pod, r CertificateRequest) (Credential, error)

// Attests says which of the volumes' sources need more than ConfigMaps and
// Secrets: trust bundles, and certificates.
func Attests(pod *corev1.Pod) (bundles, certificates bool) {
	for i := range pod.Spec.Volumes {
		p := pod.Spec.Volumes[i].Projected
		if p == nil {
			continue
		}
		for _, s := range p.Sources {
			bundles = bundles || s.ClusterTrustBundle != nil
			certificates = certificates || s.PodCertificate != nil
		}
	}
	return bundles, certificates
}

// trustBundle adds a file with the trust anchors that the source selects.
func (m *maker) trustBundle(ctx context.Context, s *corev1.ClusterTrustBundleProjection) error {
	if m.v.cfg.Bundles == nil {
		return errors.New("ClusterTrustBundle projection is not supported by this node")
	}
	if s.Name == nil && s.SignerName == nil {
		return errors.New("ClusterTrustBundle projection requires either name or signerName to be set")
	}
	all, err := m.v.cfg.Bundles(ctx)
	if err != nil {
		return err
	}
	chosen, err := choose(all, s)
	if err != nil {
		return err
	}
	return m.private(s.Path, anchors(chosen))
}

// choose selects bundles; none at all is an error unless the source is optional.
func choose(all []*certificatesv1.ClusterTrustBundle, s *corev1.ClusterTrustBundleProjection) ([]*certificatesv1.ClusterTrustBundle, error) {
	optional := s.Optional != nil && *s.Optional
	if s.Name != nil {
		for _, b := range all {
			if b.Name == *s.Name {
				return []*certificatesv1.ClusterTrustBundle{b}, nil
			}
		}
		if optional {
			return nil, nil
		}
		return nil, fmt.Errorf("while getting ClusterTrustBundle: %w",
			apierrors.NewNotFound(certificatesv1.Resource("clustertrustbundle"), *s.Name))
	}
	// No selector matches nothing, an empty one everything.
	selector, err := metav1.LabelSelectorAsSelector(s.LabelSelector)
	if err != nil {
		return nil, fmt.Errorf("while parsing label selector: %w", err)
	}
	var chosen []*certificatesv1.ClusterTrustBundle
	for _, b := range all {
		if b.Spec.SignerName == *s.SignerName && selector.Matches(labels.Set(b.Labels)) {
			chosen = append(chosen, b)
		}
	}
	if len(chosen) == 0 && !optional {
		return nil, errors.New("combination of signerName and labelSelector matched zero ClusterTrustBundles")
	}
	return chosen, nil
}

// anchors are the bundles' certificates, each once and without headers or what
// stands between them. The order says nothing, but is always the same, so that
// an unchanged set leaves the file alone.
func anchors(bundles []*certificatesv1.ClusterTrustBundle) []byte {
	set := map[string]bool{}
	for _, b := range bundles {
		rest := []byte(b.Spec.TrustBundle)
		for {
			var block *pem.Block
			if block, rest = pem.Decode(rest); block == nil {
				break
			}
			set[string(block.Bytes)] = true
		}
	}
	var out bytes.Buffer
	for _, der := range slices.Sorted(maps.Keys(set)) {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(der)}))
	}
	return out.Bytes()
}

// certificate adds the files of a podCertificate source.
func (m *maker) certificate(ctx context.Context, index int, s *corev1.PodCertificateProjection) error {
	if m.v.cfg.Certificates == nil {
		return errors.New("podCertificate projection is not supported by this node")
	}
	got, err := m.v.cfg.Certificates(ctx, m.pod, CertificateRequest{Volume: m.name, Source: index, PodCertificateProjection: s})
	if err != nil {
		return err
	}
	m.renew(got.Renew)
	for _, f := range []struct {
		path string
		data []byte
	}{
		{s.CredentialBundlePath, slices.Concat(got.Key, got.Chain)}, {s.KeyPath, got.Key}, {s.CertificateChainPath, got.Chain},
	} {
		if f.path == "" {
			continue
		}
		if err := m.private(f.path, f.data); err != nil {
			return err
		}
	}
	return nil
}

// private adds a file that only the containers' user may read, if they share
// one or an fsGroup, and everybody otherwise: as upstream does.
func (m *maker) private(path string, data []byte) error {
	if err := m.add(path, data, nil); err != nil {
		return err
	}
	f := m.files[path]
	f.uid = oneUser(m.pod)
	if _, ok := fsGroup(m.pod); ok || f.uid != -1 {
		f.mode = 0o600
	}
	m.files[path] = f
	return nil
}

// renew asks for the volume to be prepared again at t.
func (m *maker) renew(t time.Time) {
	if !t.IsZero() && (m.refresh.IsZero() || t.Before(m.refresh)) {
		m.refresh = t
	}
}
