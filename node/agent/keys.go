package agent

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/node/agent/keyring"
	"github.com/sampan-dev/sampan/node/agent/provider"
	"github.com/sampan-dev/sampan/node/agent/pulled"
)

// keys are whatever fits the image's repository: of the pod's pull secrets, then of
// the node's files, then of the providers.
type keys struct {
	a         *Agent
	files     *keyring.Files
	providers *provider.Set
}

// newPulls makes the puller, with what it knows of credentials.
func (a *Agent) newPulls() error {
	providers, err := provider.Load(provider.Config{
		Path: a.cfg.CredentialProviders, Bin: a.cfg.CredentialPrograms, Log: a.cfg.Log,
		Account: func(ctx context.Context, namespace, name string) (*corev1.ServiceAccount, error) {
			return client.ServiceAccounts.Get(ctx, a.cfg.Transport, namespace, name)
		},
		Token: a.mintFor, NoTokens: !a.cfg.gates.On("KubeletServiceAccountTokenForCredentialProviders"), Ran: a.tally.ProviderRan,
	})
	if err != nil {
		return fmt.Errorf("agent: credential providers: %w", err)
	}
	k := a.cfg.Kubelet
	records, err := pulled.New(pulled.Config{
		Dir: a.cfg.KubeletRoot, Policy: cmp.Or(k.ImagePullCredentialsVerificationPolicy, kubeletv1beta1.NeverVerify), Allow: k.PreloadedImagesVerificationAllowlist,
		Checked: a.tally.ImageChecked, Log: a.cfg.Log,
	})
	if err != nil {
		return fmt.Errorf("agent: kubelet configuration: %w", err)
	}
	if a.cfg.Counts == nil { // those of several agents would be one another's
		a.tally.Providers(providers.Hash())
		a.tally.ImageRecords(records.Sizes)
	}
	home := a.cfg.Home
	if home == "" && a.cfg.Capacity == nil {
		home, _ = os.UserHomeDir() // without one there is one file less
	}
	a.images = newPuller(a.cfg.Engine, records, a.cfg.ParallelPulls, a.spawn)
	a.images.rate = rate(k.RegistryPullQPS, k.RegistryBurst)
	a.images.pulled = a.tally.ImagePulled
	a.images.keys = keys{a, keyring.NodeFiles(a.cfg.KubeletRoot, home), providers}.of
	return nil
}

// of finds what a pod has for an image, and which of its pull secrets are not there.
func (k keys) of(ctx context.Context, pod *corev1.Pod, image string) (have []keyring.Key, missing []string, err error) {
	repository, err := keyring.Repository(image)
	if err != nil {
		return nil, nil, nil //nolint:nilerr // the engine says what is wrong with the name
	}
	ring := keyring.Ring{}
	for _, ref := range pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		secret, err := k.a.refs.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			missing = append(missing, ref.Name) // tellMissing says so if the pull fails
			continue
		}
		entries, err := keyring.OfSecret(secret)
		if err != nil {
			return nil, nil, fmt.Errorf("image pull secret %q: %w", ref.Name, err)
		}
		ring.Add(keyring.Source{Secret: &keyring.Object{Namespace: secret.Namespace, Name: secret.Name, UID: string(secret.UID)}}, entries)
	}
	return slices.Concat(ring.Find(repository), k.files.Find(repository), k.providers.Find(ctx, pod, repository)), missing, nil
}

// tellMissing says, after a pull that failed, which pull secrets were not there.
func (a *Agent) tellMissing(pod *corev1.Pod, missing []string) {
	if len(missing) > 0 {
		a.events.Event(pod, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
			fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", ")))
	}
}

// mintFor asks for a token of a service account for a credential provider.
func (a *Agent) mintFor(ctx context.Context, pod *corev1.Pod, account *corev1.ServiceAccount, audience string) (provider.Token, error) {
	made, err := a.bound(ctx, pod, account.Name, &authenticationv1.TokenRequest{ObjectMeta: metav1.ObjectMeta{UID: account.UID},
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}})
	if err != nil {
		return provider.Token{}, err
	}
	until := made.Status.ExpirationTimestamp.Time
	issued := until
	if life := made.Spec.ExpirationSeconds; life != nil {
		issued = until.Add(-time.Duration(*life) * time.Second)
	}
	return provider.Token{Value: made.Status.Token, Issued: issued, Until: until}, nil
}

// resumePulls makes good what an agent before this one left in the middle of pulls.
func (a *Agent) resumePulls(ctx context.Context) {
	a.images.records.Resume(func() ([]*rt.Image, error) {
		list, err := a.cfg.Engine.ListImages(ctx, &rt.ListImagesRequest{})
		return list.GetImages(), err
	})
}
