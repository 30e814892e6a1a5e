package agent

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/volume"
)

// pullTimeout bounds one pull: a large image on a slow line takes its time, a
// registry that trickles bytes doesn't get for ever.
const pullTimeout = 30 * time.Minute

// puller fetches images for all pods: a few at a time, and an image that several
// pods want at once with the same credentials only once. A pull goes on for as
// long as somebody waits for it: the end of the pod that began it is nothing to
// the others, and nobody waits for a pull that he has given up.
type puller struct {
	engine cri.Engine
	source volume.Source
	slots  chan struct{}
	// spawn runs a pull beside those who wait for it.
	spawn func(func())

	mu      sync.Mutex
	flights map[string]*flight
}

// flight is one pull under way; done closes when took and err are set.
type flight struct {
	done chan struct{}
	took time.Duration
	err  error
	// waiting is how many want it; the last to go gives it up.
	waiting int
	cancel  context.CancelFunc
}

func newPuller(engine cri.Engine, source volume.Source, parallel int, spawn func(func())) *puller {
	return &puller{engine: engine, source: source, slots: make(chan struct{}, parallel), spawn: spawn, flights: map[string]*flight{}}
}

// find returns what the engine knows of an image; ok is false when it has none.
func (p *puller) find(ctx context.Context, name string) (spec.Image, bool, error) {
	got, err := p.engine.ImageStatus(ctx, &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: name, UserSpecifiedImage: name}})
	if cri.IsNotFound(err) {
		return spec.Image{}, false, nil
	}
	if err != nil || got.GetImage() == nil {
		return spec.Image{}, false, err
	}
	img := got.GetImage()
	out := spec.Image{Ref: img.GetId(), User: img.GetUsername(), Size: img.GetSize()}
	if uid := img.GetUid(); uid != nil {
		out.UID = &uid.Value
	}
	return out, true, nil
}

// pull fetches an image, trying the pod's credentials one after the other and
// at last none. It returns how long the pull itself took, and at once when ctx
// ends.
func (p *puller) pull(ctx context.Context, pod *corev1.Pod, image string) (time.Duration, error) {
	auths, err := p.credentials(ctx, pod, image)
	if err != nil {
		return 0, err
	}
	var failed error
	for _, auth := range append(auths, nil) {
		took, err := p.once(ctx, pod, image, auth)
		if err == nil {
			return took, nil
		}
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return 0, failed
}

// once waits for a pull that is under way, or begins it.
func (p *puller) once(ctx context.Context, pod *corev1.Pod, image string, auth *rt.AuthConfig) (time.Duration, error) {
	key := image + "\x00" + auth.GetUsername() + "\x00" + auth.GetPassword() + "\x00" + auth.GetIdentityToken() + "\x00" + auth.GetAuth()
	p.mu.Lock()
	f := p.flights[key]
	if f == nil {
		f = p.begin(ctx, key, &rt.PullImageRequest{
			Image: &rt.ImageSpec{Image: image, UserSpecifiedImage: image}, Auth: auth,
			SandboxConfig: &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID)}},
		})
	}
	f.waiting++
	p.mu.Unlock()
	select {
	case <-f.done:
		return f.took, f.err
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.waiting--; f.waiting == 0 {
		f.cancel()
		p.forget(key, f) // who comes now begins anew
	}
	return 0, context.Cause(ctx)
}

// begin starts a pull that outlives ctx; p.mu is held.
func (p *puller) begin(ctx context.Context, key string, r *rt.PullImageRequest) *flight {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &flight{done: make(chan struct{}), cancel: cancel}
	p.flights[key] = f
	p.spawn(func() {
		defer cancel()
		f.took, f.err = p.fetch(ctx, r)
		p.mu.Lock()
		p.forget(key, f)
		p.mu.Unlock()
		close(f.done)
	})
	return f
}

func (p *puller) forget(key string, f *flight) {
	if p.flights[key] == f {
		delete(p.flights, key)
	}
}

// fetch asks the engine when it is this pull's turn.
func (p *puller) fetch(ctx context.Context, r *rt.PullImageRequest) (time.Duration, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	begin := time.Now()
	_, err := p.engine.PullImage(ctx, r)
	return time.Since(begin), err
}

// dockerConfig is the file that image pull secrets hold.
type dockerConfig struct {
	Auths map[string]dockerAuth `json:"auths"`
}

type dockerAuth struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
}

// credentials are those of the pod's pull secrets that fit the image's registry.
// A secret that isn't there is passed over, as upstream does.
func (p *puller) credentials(ctx context.Context, pod *corev1.Pod, image string) ([]*rt.AuthConfig, error) {
	var list []*rt.AuthConfig
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := p.source.Secret(ctx, pod.Namespace, ref.Name)
		if err != nil {
			continue
		}
		auths, err := parseAuths(secret)
		if err != nil {
			return nil, fmt.Errorf("image pull secret %q: %w", ref.Name, err)
		}
		for registry, a := range auths {
			if registryFits(registry, image) {
				list = append(list, a.config(registry))
			}
		}
	}
	return list, nil
}

func parseAuths(s *corev1.Secret) (map[string]dockerAuth, error) {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var cfg dockerConfig
		err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &cfg)
		return cfg.Auths, err
	case corev1.SecretTypeDockercfg:
		var auths map[string]dockerAuth
		err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &auths)
		return auths, err
	}
	return nil, nil
}

func (a dockerAuth) config(registry string) *rt.AuthConfig {
	out := &rt.AuthConfig{Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, ServerAddress: registry}
	if out.Username == "" && a.Auth != "" {
		if raw, err := base64.StdEncoding.DecodeString(a.Auth); err == nil {
			out.Username, out.Password, _ = strings.Cut(string(raw), ":")
		}
	}
	return out
}

// registryFits matches an auth's key (https://host/v1/, host, host/path, with
// *.host allowed) against an image's name. Names without a registry are Docker
// Hub's.
func registryFits(registry, image string) bool {
	host, path, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://"), "/")
	path = strings.TrimSuffix(path, "/")
	if path == "v1" || path == "v2" {
		path = ""
	}
	imageHost, rest, ok := strings.Cut(image, "/")
	if !ok || !(strings.ContainsAny(imageHost, ".:") || imageHost == "localhost") {
		imageHost, rest = "docker.io", image
	}
	if host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	return hostFits(host, imageHost) && (path == "" || rest == path || strings.HasPrefix(rest, path+"/"))
}

func hostFits(pattern, host string) bool {
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if p[i] != "*" && p[i] != h[i] {
			return false
		}
	}
	return true
}
