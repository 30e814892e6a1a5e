package volume

import (
	"context"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

func anchor(name string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(name)}))
}

func bundle(name, signer, tier string, anchors ...string) *certificatesv1.ClusterTrustBundle {
	return &certificatesv1.ClusterTrustBundle{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"tier": tier}},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signer, TrustBundle: "noise\n" + strings.Join(anchors, "between\n")},
	}
}

func projected(sources ...corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}}
}

func TestTrustBundles(t *testing.T) {
	yes, name, gone, signer := true, "one", "gone", "example.com/s"
	live := metav1.LabelSelector{MatchLabels: map[string]string{"tier": "live"}}
	tests := map[string]struct {
		source corev1.ClusterTrustBundleProjection
		want   string
		fails  string
	}{
		"by name":            {source: corev1.ClusterTrustBundleProjection{Name: &name}, want: anchor("a") + anchor("z")},
		"by signer":          {source: corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: &live}, want: anchor("a") + anchor("b")},
		"an empty selector":  {source: corev1.ClusterTrustBundleProjection{SignerName: &signer, LabelSelector: &metav1.LabelSelector{}}, want: anchor("a") + anchor("b") + anchor("c")},
		"no selector":        {source: corev1.ClusterTrustBundleProjection{SignerName: &signer}, fails: "matched zero ClusterTrustBundles"},
		"absent":             {source: corev1.ClusterTrustBundleProjection{Name: &gone}, fails: `"gone" not found`},
		"absent, optionally": {source: corev1.ClusterTrustBundleProjection{Name: &gone, Optional: &yes}},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			b := newBench(t)
			b.cfg.Bundles = func(context.Context) ([]*certificatesv1.ClusterTrustBundle, error) {
				return []*certificatesv1.ClusterTrustBundle{
					bundle("one", "", "", anchor("z"), anchor("a"), anchor("z")),
					bundle("s1", signer, "live", anchor("b"), anchor("a")), bundle("s2", signer, "live", anchor("a")),
					bundle("s3", signer, "old", anchor("c")), bundle("o", "example.com/o", "live", anchor("d")),
				}, nil
			}
			tt.source.Path = "roots.pem"
			set, err := b.Prepare(t.Context(), podWith(projected(corev1.VolumeProjection{ClusterTrustBundle: &tt.source})), downward.Facts{})
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Fatalf("got %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, set.Paths["v"]+"/roots.pem"); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestCertificates(t *testing.T) {
	b := newBench(t)
	pod := podWith(projected(corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{
		SignerName: "example.com/s", KeyType: "ED25519", CredentialBundlePath: "both.pem", KeyPath: "key.pem", CertificateChainPath: "chain.pem",
	}}))
	user := int64(1000)
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &user}
	if _, err := b.Prepare(t.Context(), pod, downward.Facts{}); err == nil {
		t.Fatal("prepared without anybody who certifies")
	}
	waiting, renew := errors.New("not issued"), time.Now().Add(time.Hour)
	b.cfg.Certificates = func(_ context.Context, _ *corev1.Pod, r CertificateRequest) (Credential, error) {
		if r.Volume != "v" || r.Source != 0 || r.SignerName != "example.com/s" {
			t.Errorf("asked for %+v", r)
		}
		return Credential{Key: []byte("K"), Chain: []byte("C"), Renew: renew}, waiting
	}
	if _, err := b.Prepare(t.Context(), pod, downward.Facts{}); !errors.Is(err, waiting) {
		t.Fatalf("got %v, want %v", err, waiting)
	}
	waiting = nil
	set, err := b.Prepare(t.Context(), pod, downward.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"both.pem": "KC", "key.pem": "K", "chain.pem": "C"} {
		path := set.Paths["v"] + "/" + file
		if got := read(t, path); got != want {
			t.Errorf("%s has %q, want %q", file, got, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want mode 0600", file, info.Mode(), err)
		}
	}
	if !set.Refresh.Equal(renew) {
		t.Errorf("refresh at %s, want %s", set.Refresh, renew)
	}
}
