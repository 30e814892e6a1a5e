package engine

import (
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/image"
)

func TestDigested(t *testing.T) {
	const sum = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	img := image.Image{ID: "sha256:bbbb", Digests: []string{"docker.io/library/app" + sum, "localhost:5000/team/app" + sum, "localhost:5000/team/app2" + sum}}
	for _, test := range []struct {
		image, user, want string
	}{
		{"app:v1", "", img.Digests[0]},
		{"localhost:5000/team/app:v1", "", img.Digests[1]},
		{"localhost:5000/team/app2", "", img.Digests[2]},
		{"localhost:5000/team/app2" + sum, "", img.Digests[2]},
		{img.ID, "localhost:5000/team/app:v2", img.Digests[1]}, // a kubelet asks by the ID
		{img.ID, "", img.Digests[0]},
		{"elsewhere.example/app:v1", "", img.Digests[0]},
	} {
		if got := digested(img, &rt.ImageSpec{Image: test.image, UserSpecifiedImage: test.user}); got != test.want {
			t.Errorf("%q, by a person %q: %q, want %q", test.image, test.user, got, test.want)
		}
	}
	if got := digested(image.Image{ID: img.ID}, &rt.ImageSpec{Image: "app:v1"}); got != img.ID {
		t.Errorf("one of no repository is %q", got)
	}
}
