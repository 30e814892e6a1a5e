package static

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// fetchTimeout bounds one question for manifests, upstream's.
const fetchTimeout = 10 * time.Second

// FetchConfig is what Fetch needs; see Config for the fields of the same name.
type FetchConfig struct {
	// URL answers with one pod, or with a list of them. Header goes with each question.
	URL      string
	Header   http.Header
	NodeName string
	Every    time.Duration
	Prepare  func(*corev1.Pod) error
	Log      *slog.Logger
}

// Fetch reads pods from a URL and tells changed of all of them, at once and after each
// change, until ctx ends. An answer that can't be used leaves what was; where there was
// none yet, there are no pods.
func Fetch(ctx context.Context, cfg FetchConfig, changed func([]*corev1.Pod)) error {
	s := newSource(Config{NodeName: cfg.NodeName, Prepare: cfg.Prepare, Log: cfg.Log})
	s.url = cfg.URL
	client := &http.Client{Timeout: fetchTimeout}
	timer := time.NewTimer(0)
	defer timer.Stop()
	var last []byte
	told := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(cfg.Every)
		data, err := get(ctx, client, cfg)
		if err == nil && told && bytes.Equal(data, last) {
			s.tell(cfg.URL, nil)
			continue
		}
		var pods []*corev1.Pod
		if err == nil {
			pods, err = s.list(data)
		}
		s.tell(cfg.URL, err)
		if err != nil && told {
			continue
		}
		if err == nil {
			last = data
		}
		told = true
		changed(pods)
	}
}

func get(ctx context.Context, client *http.Client, cfg FetchConfig) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, cfg.URL, nil)
	if err != nil {
		return nil, err
	}
	if cfg.Header != nil {
		r.Header = cfg.Header.Clone()
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answered %s", answer.Status)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, maxManifest+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxManifest:
		return nil, fmt.Errorf("is larger than %d bytes", maxManifest)
	case len(data) == 0:
		return nil, errors.New("answered with nothing")
	}
	return data, nil
}

// list reads a pod or a list of pods; one that can't be used leaves out all, as upstream.
func (s *source) list(data []byte) ([]*corev1.Pod, error) {
	var all corev1.PodList
	if err := yaml.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("couldn't parse as pods: %w", err)
	}
	var pods []*corev1.Pod
	if all.Kind == "Pod" && all.APIVersion == "v1" {
		one := &corev1.Pod{}
		if err := yaml.Unmarshal(data, one); err != nil {
			return nil, fmt.Errorf("couldn't parse as pod: %w", err)
		}
		pods = append(pods, one)
	} else if all.Kind != "PodList" && all.Kind != "List" || all.APIVersion != "v1" {
		return nil, fmt.Errorf("couldn't parse as pods: it is a %q of %q", all.Kind, all.APIVersion)
	}
	if len(all.Items) > maxPods {
		return nil, fmt.Errorf("has more than %d pods", maxPods)
	}
	for i := range all.Items {
		pods = append(pods, &all.Items[i])
	}
	names := map[types.NamespacedName]bool{}
	for _, pod := range pods {
		if pod.Name == "" {
			return nil, errors.New("invalid pod: name is needed for the pod")
		}
		if err := s.complete(pod, s.url); err != nil {
			return nil, err
		}
		key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
		if names[key] {
			return nil, fmt.Errorf("pod %q is there twice", key)
		}
		names[key] = true
	}
	return pods, nil
}
