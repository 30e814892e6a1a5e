package legacytoken_test

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/legacytoken"
)

const (
	day     = 24 * time.Hour
	lastUse = "kubernetes.io/legacy-token-last-used"
	invalid = "kubernetes.io/legacy-token-invalid-since"
)

// start runs the controller on a server with the objects.
func start(t *testing.T, objects ...client.Object) *clienttest.Memory {
	t.Helper()
	server := clienttest.NewMemory()
	server.Seed(objects...)
	log := slog.New(slog.DiscardHandler)
	transport := func(string) client.Transport { return server }
	mirrors := controller.NewMirrors(server, log)
	c, err := legacytoken.New(controller.Config{Transport: transport, Mirrors: mirrors, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = mirrors.Run(t.Context()) }()
	go func() { _ = c.Run(t.Context()) }()
	return server
}

func record(since string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-apiserver-legacy-service-account-token-tracking"}, Data: map[string]string{"since": since}}
}

// token is a secret of the robot, made now; account names it.
func token(name string, labels map[string]string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: "uid-of-token", Labels: labels, CreationTimestamp: metav1.Now(),
		Annotations: map[string]string{corev1.ServiceAccountNameKey: "robot"}}, Type: corev1.SecretTypeServiceAccountToken}
}

func account(secrets ...string) *corev1.ServiceAccount {
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "robot", UID: "u1"}}
	for _, s := range secrets {
		a.Secrets = append(a.Secrets, corev1.ObjectReference{Name: s})
	}
	return a
}

func date(after time.Duration) string { return time.Now().Add(after).UTC().Format(time.DateOnly) }

// state is what became of a token.
func state(t *testing.T, server *clienttest.Memory, name string) string {
	t.Helper()
	synctest.Wait()
	s, err := client.Secrets.Get(t.Context(), server, "x", name)
	switch {
	case apierrors.IsNotFound(err):
		return "gone"
	case err != nil:
		t.Fatal(err)
	case s.Labels[invalid] != "":
		return "invalid since " + s.Labels[invalid]
	}
	return "there"
}

// A token that nobody uses is marked after a year of tracking, and deleted after
// another.
func TestUnusedTokenEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := start(t, record(date(0)), account("old"), token("old", nil))
		time.Sleep(365 * day)
		if got := state(t, server, "old"); got != "there" {
			t.Errorf("after a year less some hours of tracking: %s", got)
		}
		time.Sleep(2 * day)
		got := state(t, server, "old")
		if got != "invalid since "+date(0) && got != "invalid since "+date(-day) {
			t.Errorf("after a year: %s", got)
		}
		time.Sleep(364 * day)
		if again := state(t, server, "old"); again != got {
			t.Errorf("after nearly two years: %s", again)
		}
		time.Sleep(3 * day)
		if got := state(t, server, "old"); got != "gone" {
			t.Errorf("after two years: %s", got)
		}
	})
}

// What somebody may want stays.
func TestTokensThatStay(t *testing.T) {
	pod := func(spec corev1.PodSpec) *corev1.Pod {
		spec.Containers = append(spec.Containers, corev1.Container{Name: "c"})
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p"}, Spec: spec}
	}
	volume := func(v corev1.VolumeSource) *corev1.Pod {
		return pod(corev1.PodSpec{Volumes: []corev1.Volume{{Name: "v", VolumeSource: v}}})
	}
	ref := corev1.LocalObjectReference{Name: "old"}
	marked := func(label, value string) *corev1.Secret { return token("old", map[string]string{label: value}) }
	for name, c := range map[string]struct {
		since   string
		objects func() []client.Object
		want    string
	}{
		"unused":               {"", func() []client.Object { return []client.Object{account("old"), token("old", nil)} }, "invalid"},
		"used long ago":        {"", func() []client.Object { return []client.Object{account("old"), marked(lastUse, date(day))} }, "invalid"},
		"used since":           {"", func() []client.Object { return []client.Object{account("old"), marked(lastUse, date(300*day))} }, "there"},
		"who knows when used":  {"", func() []client.Object { return []client.Object{account("old"), marked(lastUse, "yesterday")} }, "there"},
		"not tracked for long": {date(200 * day), func() []client.Object { return []client.Object{account("old"), token("old", nil)} }, "there"},
		"asked for":            {"", func() []client.Object { return []client.Object{account(), token("old", nil)} }, "there"},
		"of nobody":            {"", func() []client.Object { return []client.Object{token("old", nil)} }, "there"},
		"of another of the name": {"", func() []client.Object {
			s := token("old", nil)
			s.Annotations[corev1.ServiceAccountUIDKey] = "u0"
			return []client.Object{account("old"), s}
		}, "there"},
		"another type": {"", func() []client.Object {
			s := token("old", nil)
			s.Type = corev1.SecretTypeOpaque
			return []client.Object{account("old"), s}
		}, "there"},
		"mounted": {"", func() []client.Object {
			return []client.Object{account("old"), token("old", nil), volume(corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "old"}})}
		}, "there"},
		"projected": {"", func() []client.Object {
			return []client.Object{account("old"), token("old", nil), volume(corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{Secret: &corev1.SecretProjection{LocalObjectReference: ref}}}}})}
		}, "there"},
		"in the environment": {"", func() []client.Object {
			return []client.Object{account("old"), token("old", nil), pod(corev1.PodSpec{Containers: []corev1.Container{{Name: "e", EnvFrom: []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: ref}}}}}})}
		}, "there"},
		"to pull images with": {"", func() []client.Object {
			return []client.Object{account("old"), token("old", nil), pod(corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{ref}})}
		}, "there"},
		"marked in no date": {"", func() []client.Object { return []client.Object{account("old"), marked(invalid, "x")} }, "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				since := c.since
				if since == "" {
					since = date(0)
				}
				server := start(t, append(c.objects(), record(since))...)
				time.Sleep(368 * day)
				got := state(t, server, "old")
				if len(got) > 7 && got[:7] == "invalid" && got != "invalid since x" {
					got = "invalid"
				}
				if got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
			})
		})
	}
}
