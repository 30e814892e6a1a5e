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

// puller fetches images for all pods: a few at a time, and an image that two
// pods want at once with the same credentials only once.
type puller struct {
	engine cri.Engine
	source volume.Source
	slots  chan struct{}

	mu      sync.Mutex
	flights map[string]*flight
}

// flight is one pull under way; done closes when err is set.
type flight struct {
	done chan struct{}
	err  error
}

func newPuller(engine cri.Engine, source volume.Source, parallel int) *puller {
	return &puller{engine: engine, source: source, slots: make(chan struct{}, parallel), flights: map[string]*flight{}}
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
// at last none. It returns how long the pull itself took.
func (p *puller) pull(ctx context.Context, pod *corev1.Pod, image string) (time.Duration, error) {
	auths, err := p.credentials(ctx, pod, image)
	if err != nil {
		return 0, err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, pullTimeout)
	defer cancel()
	begin := time.Now()
	var failed error
	for _, auth := range append(auths, nil) {
		err := p.once(ctx, pod, image, auth)
		if err == nil {
			return time.Since(begin), nil
		}
		failed = errors.Join(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return 0, failed
}

func (p *puller) once(ctx context.Context, pod *corev1.Pod, image string, auth *rt.AuthConfig) error {
	key := image + "\x00" + auth.GetUsername() + "\x00" + auth.GetPassword() + "\x00" + auth.GetIdentityToken() + "\x00" + auth.GetAuth()
	p.mu.Lock()
	if f := p.flights[key]; f != nil {
		p.mu.Unlock()
		select {
		case <-f.done:
			return f.err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	f := &flight{done: make(chan struct{})}
	p.flights[key] = f
	p.mu.Unlock()
	_, f.err = p.engine.PullImage(ctx, &rt.PullImageRequest{
		Image: &rt.ImageSpec{Image: image, UserSpecifiedImage: image}, Auth: auth,
		SandboxConfig: &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID)}},
	})
	p.mu.Lock()
	delete(p.flights, key)
	p.mu.Unlock()
	close(f.done)
	return f.err
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
