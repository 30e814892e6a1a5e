package static

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

const (
	onePod  = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: c, image: i}]}\n"
	twoPods = "apiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: a}\n  spec: {containers: [{name: c, image: i}]}\n- metadata: {name: b, namespace: x}\n"
)

// TestFetch: what is told of what a URL answers, one answer after the other.
func TestFetch(t *testing.T) {
	steps := []struct {
		code int
		body string
		want string // "" is for nothing told
	}{
		{500, "", "[]"}, // there is nothing yet, and nobody waits for it
		{200, onePod, "[default/a-n1]"},
		{200, onePod, ""},
		{404, "", ""},
		{200, "", ""},
		{200, "kind: Service\napiVersion: v1\n", ""},
		{200, twoPods, "[default/a-n1 x/b-n1]"},
		{200, "{broken", ""},
		{200, "apiVersion: v1\nkind: PodList\nitems: []\n", "[]"},
	}
	var step atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := int(step.Add(1)) - 1
		if i >= len(steps) {
			<-r.Context().Done() // the last has been looked at when it is asked once more
			return
		}
		if r.Header.Get("X-Who") != "me" {
			t.Errorf("asked with %v", r.Header)
		}
		w.WriteHeader(steps[i].code)
		fmt.Fprint(w, steps[i].body)
	}))
	defer srv.Close()
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, len(steps))
	done := make(chan error, 1)
	go func() {
		done <- Fetch(ctx, FetchConfig{URL: srv.URL, Header: http.Header{"X-Who": {"me"}}, NodeName: "n1", Every: time.Millisecond, Log: slog.New(slog.DiscardHandler)}, func(pods []*corev1.Pod) {
			names := []string{}
			for _, p := range pods {
				if !Is(p) || p.Annotations[AnnotationSource] != sourceURL || p.Spec.NodeName != "n1" {
					t.Errorf("pod %s is not the node's: %v", p.Name, p.Annotations)
				}
				names = append(names, p.Namespace+"/"+p.Name)
			}
			told <- fmt.Sprint(names)
		})
	}()
	var want []string
	for _, s := range steps {
		if s.want != "" {
			want = append(want, s.want)
		}
	}
	var got []string
	for range want {
		got = append(got, <-told)
	}
	cancel()
	if err := <-done; err != nil || strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told %q, want %q, ended with %v", got, want, err)
	}
}
