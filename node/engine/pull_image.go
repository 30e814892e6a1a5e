package engine

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// pullStall is how long a pull may go on without a byte before it is given up:
// long enough for a big layer to be unpacked.
const pullStall = 5 * time.Minute

var errStalled = errors.New("no progress for " + pullStall.String())

// PullImage brings an image and tells its ID.
func (e *Engine) PullImage(ctx context.Context, r *rt.PullImageRequest) (*rt.PullImageResponse, error) {
	ref := r.GetImage().GetImage()
	if ref == "" {
		return nil, invalid("no image to pull")
	}
	if !e.knownHandler(r.GetImage().GetRuntimeHandler()) {
		return nil, invalid("runtime handler %q is unknown; there is %q", r.GetImage().GetRuntimeHandler(), Name)
	}
	auth, err := credentials(r.GetAuth())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(pullStall, func() { cancel(errStalled) })
	defer stall.Stop()
	tell := func(image.Progress) {}
	if e.cfg.OnPull != nil {
		var end func()
		tell, end = e.cfg.OnPull(r)
		defer end()
	}
	img, err := e.images.Pull(ctx, ref, image.TransferOptions{Auth: auth, Progress: func(p image.Progress) {
		stall.Reset(pullStall)
		tell(p)
	}})
	if errors.Is(context.Cause(ctx), errStalled) {
		err = errStalled
	}
	if err != nil {
		return nil, coded(fmt.Errorf("pull image %q: %w", ref, err))
	}
	return &rt.PullImageResponse{ImageRef: img.ID}, nil
}

// credentials reads the CRI's, where user and password may come encoded as in a
// Docker configuration file.
func credentials(a *rt.AuthConfig) (image.Auth, error) {
	out := image.Auth{Username: a.GetUsername(), Password: a.GetPassword(), IdentityToken: a.GetIdentityToken(), RegistryToken: a.GetRegistryToken()}
	if out != (image.Auth{}) || a.GetAuth() == "" {
		return out, nil
	}
	raw, err := base64.StdEncoding.DecodeString(a.GetAuth())
	if err != nil {
		return image.Auth{}, invalid("registry credentials are not base64")
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(raw), "\x00"), ":")
	if !ok {
		return image.Auth{}, invalid("registry credentials have no colon")
	}
	return image.Auth{Username: user, Password: password}, nil
}
