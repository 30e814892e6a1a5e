package cli

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client/clienttest"
)

// A bare name is that of the one object that has it.
func TestMeant(t *testing.T) {
	memory := clienttest.NewMemory()
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "5f2a0000", Labels: map[string]string{runLabel: name}}
	}
	memory.Seed(
		&corev1.Pod{ObjectMeta: meta("default", "web")}, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "both"}},
		&appsv1.Deployment{ObjectMeta: meta("default", "both")}, &corev1.Service{ObjectMeta: meta("default", "both")},
		&appsv1.Deployment{ObjectMeta: meta("default", "shop")}, &appsv1.Deployment{ObjectMeta: meta("elsewhere", "far")},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}},
	)
	s := &server{Transport: memory, namespace: "default"}
	for text, want := range map[string]string{
		"web": "pod default web", "shop": "deployment default shop", "n1": "node default n1", "5f2a": "pod default web",
		"pod/web": "pod default web", "deploy both": "deployment default both",
		"both": "say which, pod/both or deployment/both or service/both", "far": `nothing in namespace default is called "far"`,
	} {
		at, err := s.meant(t.Context(), strings.Fields(text), "default")
		got := at.kind + " " + at.namespace + " " + at.name
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
