package static

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  containers: [{name: etcd, image: IMAGE}]
`

// TestFollowsDirectory: pods come, change their identity and go with their files.
func TestFollowsDirectory(t *testing.T) {
	dir := t.TempDir()
	pods := make(chan []*corev1.Pod, 16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Path: dir, NodeName: "N1", Every: time.Hour, Log: slog.New(slog.DiscardHandler)}, func(p []*corev1.Pod) { pods <- p })
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	await := func(want int) []*corev1.Pod {
		t.Helper()
		limit := time.After(time.Minute)
		for {
			select {
			case p := <-pods:
				if len(p) == want {
					return p
				}
			case <-limit:
				t.Fatalf("never saw %d pods", want)
			}
		}
	}
	await(0)
	file := filepath.Join(dir, "etcd.yaml")
	write := func(image string) {
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(manifest, "IMAGE", image)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	p := await(1)[0]
	if p.Name != "etcd-n1" || p.Namespace != "kube-system" || p.Spec.NodeName != "N1" || len(p.UID) != 32 || p.Annotations[AnnotationHash] != string(p.UID) ||
		p.Annotations[AnnotationSource] != "file" || p.Annotations[AnnotationSeen] == "" || len(p.Spec.Tolerations) != 1 || !Is(p) || IsMirror(p) {
		t.Errorf("the pod is %+v", p)
	}
	write("two")
	for again := await(1)[0]; again.UID == p.UID; again = await(1)[0] {
	}
	// What goes and comes back as it was has been away.
	os.Remove(file)
	write("two")
	await(0)
	await(1)
	os.Remove(file)
	await(0)
}

// TestRefusals: a manifest that can't be used is told of once; the others count.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{
		"good.yaml":    strings.ReplaceAll(manifest, "IMAGE", "x"),
		"twin.yaml":    strings.ReplaceAll(manifest, "IMAGE", "y"),
		"broken.yaml":  "{",
		"service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: a}\n",
		"secret.yaml":  "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {containers: [{name: c, image: d, envFrom: [{secretRef: {name: e}}]}]}\n",
		"account.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: b}\nspec: {serviceAccountName: x, containers: [{name: c, image: d}]}\n",
		".hidden.yaml": strings.ReplaceAll(manifest, "etcd", "hidden"),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	s := newSource(Config{Path: dir, NodeName: "n", Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 2 {
		if pods, ok := s.read(); !ok || len(pods) != 1 || pods[0].Spec.Containers[0].Image != "x" {
			t.Fatalf("read %v %v", pods, ok)
		}
	}
	for _, want := range []string{"is in", "couldn't parse as pod", `it is a \"Service\"`, "static pods may not reference secrets", "static pods may not reference serviceaccounts"} {
		if n := strings.Count(log.String(), want); n < 1 || n > 2 {
			t.Errorf("%q was told %d times:\n%s", want, n, log.String())
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 5 {
		t.Errorf("%d lines, want one a file:\n%s", n, log.String())
	}
}
