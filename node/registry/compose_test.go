package registry

import (
	"bytes"
	"strings"
	"testing"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// ask asks for references, in order.
func ask(t *testing.T, refs ...string) []image.Asked {
	t.Helper()
	var all []image.Asked
	for _, ref := range refs {
		at, err := image.Ask(t.Context(), ref, image.TransferOptions{})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, at)
	}
	return all
}

// Images of two repositories become an index in a third, and another registry gets it with
// all that is in it.
func TestCompose(t *testing.T) {
	s, far := serve(t), serve(t)
	amd := build(t, s.images, s.host+"/amd:1", "a", "amd64")
	arm := build(t, s.images, s.host+"/arm:1", "b", "arm64")
	here := open(t)
	send := func(to string, raw []byte, sources []image.Asked) {
		t.Helper()
		d, err := here.Send(t.Context(), to, raw, sources, image.TransferOptions{})
		if err != nil || d != digest.FromBytes(raw) {
			t.Fatalf("Send = %s, %v", d, err)
		}
	}
	two := ask(t, s.host+"/amd:1", s.host+"/arm:1", s.host+"/amd@"+amd.Manifest.String())
	raw, err := image.Compose(two, map[string]string{"a": "b"}, true)
	if err != nil {
		t.Fatal(err)
	}
	send(s.host+"/all:1", raw, two)
	all := ask(t, s.host+"/all:1")
	manifests, err := all[0].Manifests()
	if err != nil || len(manifests) != 2 || manifests[0].Platform.Architecture != "amd64" || manifests[1].Digest != arm.Manifest || !strings.Contains(string(raw), `"annotations":{"a":"b"}`) {
		t.Errorf("%s, %v", raw, err)
	}
	same, err := image.Compose(all, nil, true)
	if err != nil || !bytes.Equal(same, raw) {
		t.Errorf("an index alone: %s, %v", same, err)
	}
	send(far.host+"/copy/all:2", same, all)
	for arch, want := range map[string]image.Image{"amd64": amd, "arm64": arm} {
		got, err := open(t).Pull(t.Context(), far.host+"/copy/all:2", image.TransferOptions{Architecture: arch})
		if err != nil || got.Manifest != want.Manifest {
			t.Errorf("%s: %s, %v", arch, got.Manifest, err)
		}
	}
	one := ask(t, s.host+"/amd:1")
	if raw, err := image.Compose(one, nil, false); err != nil || digest.FromBytes(raw) != amd.Manifest {
		t.Errorf("an image alone: %v", err)
	}
	wrapped, err := image.Compose(one, nil, true)
	if err != nil || !strings.Contains(string(wrapped), ocispec.MediaTypeImageIndex) {
		t.Errorf("an image alone, wrapped: %s, %v", wrapped, err)
	}
	if _, err := image.Ask(t.Context(), s.host+"/none:1", image.TransferOptions{}); err == nil {
		t.Error("what is not there was found")
	}
	send(s.host+"/amd:newer", one[0].Raw, one)
	if got := ask(t, s.host+"/amd:newer"); got[0].Desc.Digest != amd.Manifest {
		t.Errorf("another name: %s", got[0].Desc.Digest)
	}
}
