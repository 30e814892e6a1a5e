package critest

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// imagePulls: an image has one ID, in every answer and by every name.
func imagePulls(x *exam) {
	r := x.registry()
	digest := r.add(map[string]any{"User": "33:34"}, "team/number:1", "team/number:2")
	r.add(map[string]any{"User": "web"}, "team/name:1")
	one := r.address + "/team/number:1"
	id := must(r.pull(one, nil))(x)
	x.equal("ID when pulled again", must(r.pull(one, nil))(x), id)
	x.equal("ID when pulled by another tag", must(r.pull(r.address+"/team/number:2", nil))(x), id)
	x.equal("ID when pulled by digest", must(r.pull(r.address+"/team/number@"+digest, nil))(x), id)
	for _, ref := range []string{one, r.address + "/team/number:2", r.address + "/team/number@" + digest, id} {
		x.equal("ID of "+ref, x.image(ref).GetId(), id)
	}
	img := x.image(one)
	x.same("tags", img.RepoTags, []string{one, r.address + "/team/number:2"})
	x.equal("digests", img.RepoDigests, []string{r.address + "/team/number@" + digest})
	x.equal("user", img.Uid.GetValue(), 33)
	x.equal("name of a user that is a number", img.Username, "")
	if img.Size == 0 {
		x.Error("it has no size")
	}
	named := x.image(must(r.pull(r.address+"/team/name:1", nil))(x))
	x.equal("user's name", named.GetUsername(), "web")
	if named.GetUid() != nil {
		x.Errorf("a user with a name has number %v too", named.Uid)
	}

	p := x.pod()
	c := p.container()
	c.Image.Image = id
	made := p.create(c)
	st := x.status(made)
	items := must(x.e.ListContainers(x.ctx(), &rt.ListContainersRequest{Filter: &rt.ContainerFilter{Id: made}}))(x).Containers
	if st.ImageId != "" { // which came after v1 did
		x.equal("image's ID in a container's status", st.ImageId, id)
		x.equal("image's ID in a list of containers", items[0].ImageId, id)
	}
	if !slices.Contains(img.RepoDigests, st.ImageRef) && st.ImageRef != id {
		x.Errorf("a container's image is %q, neither a digest of the image nor its ID", st.ImageRef)
	}
	must(x.e.RemoveContainer(x.ctx(), &rt.RemoveContainerRequest{ContainerId: made}))(x)
}

// imageRemoval: by any name goes the image with all of them, and again nothing
// happens. That it is pinned is no more than a recommendation.
func imageRemoval(x *exam) {
	r := x.registry()
	r.add(nil, "team/a:1", "other/b:latest")
	id := must(r.pull(r.address+"/team/a:1", nil))(x)
	x.equal("the same under another name", must(r.pull(r.address+"/other/b:latest", nil))(x), id)
	for range 2 {
		must(x.e.RemoveImage(x.ctx(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: r.address + "/team/a:1"}}))(x)
		for _, ref := range []string{r.address + "/team/a:1", r.address + "/other/b:latest", id} {
			if img := x.image(ref); img != nil {
				x.Errorf("%s is removed and there: %v", ref, img)
			}
		}
	}
	for _, img := range must(x.e.ListImages(x.ctx(), &rt.ListImagesRequest{}))(x).Images {
		if img.Id == id {
			x.Errorf("a removed image is listed: %v", img)
		}
	}
}

// imageCredentials: an image that not everybody may have is pulled with the
// credentials of the request, in each of their forms, and not without.
func imageCredentials(x *exam) {
	r := x.registry()
	r.ask = func(w http.ResponseWriter, q *http.Request) bool {
		user, password, _ := q.BasicAuth()
		if user == "me" && password == "secret" {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="exam"`)
		w.WriteHeader(http.StatusUnauthorized)
		return false
	}
	r.add(nil, "private/a:1")
	ref := r.address + "/private/a:1"
	for what, auth := range map[string]*rt.AuthConfig{"nothing": nil, "a wrong password": {Username: "me", Password: "guess"}} {
		if _, err := r.pull(ref, auth); err == nil {
			x.Errorf("pulled with %s", what)
		}
		if img := x.image(ref); img != nil {
			x.Errorf("it is here with %s: %v", what, img)
		}
	}
	for what, auth := range map[string]*rt.AuthConfig{
		"name and password": {Username: "me", Password: "secret", ServerAddress: "http://" + r.address},
		"both encoded":      {Auth: base64.StdEncoding.EncodeToString([]byte("me:secret"))},
	} {
		if _, err := r.pull(ref, auth); err != nil {
			x.Errorf("with %s: %v", what, err)
		}
		must(x.e.RemoveImage(x.ctx(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: ref}}))(x)
	}
}

// imageTokens: a bearer token goes to the registry as it is, an identity token is
// changed for one.
func imageTokens(x *exam) {
	r := x.registry()
	r.ask = func(w http.ResponseWriter, q *http.Request) bool {
		if q.Header.Get("Authorization") == "Bearer token-of-a-registry" {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="http://`+r.address+`/token",service="exam",scope="repository:private/t:pull"`)
		w.WriteHeader(http.StatusUnauthorized)
		return false
	}
	r.lie = func(w http.ResponseWriter, q *http.Request) bool {
		if q.URL.Path != "/token" {
			return false
		}
		if q.Method != http.MethodPost || q.PostFormValue("grant_type") != "refresh_token" || q.PostFormValue("refresh_token") != "who-i-am" {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "token-of-a-registry", "expires_in": 60}) // whoever asked may be gone
		return true
	}
	r.add(nil, "private/t:1")
	ref := r.address + "/private/t:1"
	for what, auth := range map[string]*rt.AuthConfig{"an identity token": {IdentityToken: "who-i-am"}, "a registry token": {RegistryToken: "token-of-a-registry"}} {
		if _, err := r.pull(ref, auth); err != nil {
			x.Errorf("with %s: %v", what, err)
		}
		must(x.e.RemoveImage(x.ctx(), &rt.RemoveImageRequest{Image: &rt.ImageSpec{Image: ref}}))(x)
	}
}

// imageRefusals: what is not there, or is not what its digest says, is not pulled;
// nor is anything for a handler that nobody knows.
func imageRefusals(x *exam) {
	r := x.registry()
	r.add(nil, "bad/a:1")
	ref := r.address + "/bad/a:1"
	refused := func(what string, image *rt.ImageSpec) {
		x.Helper()
		if _, err := x.e.PullImage(x.ctx(), &rt.PullImageRequest{Image: image}); err == nil {
			x.Errorf("pulled %s", what)
		}
		if img := x.image(ref); img != nil {
			x.Errorf("%s is here: %v", what, img)
		}
	}
	refused("what the registry has not", &rt.ImageSpec{Image: r.address + "/bad/none:1"})
	refused("what has no name", &rt.ImageSpec{})
	r.lie = func(w http.ResponseWriter, q *http.Request) bool {
		raw := slices.Clone(r.content[strings.TrimPrefix(q.URL.Path, "/v2/")])
		if !strings.Contains(q.URL.Path, "/blobs/") || len(raw) < 12 {
			return false
		}
		raw[11]++
		_, _ = w.Write(raw) // whoever asked may be gone
		return true
	}
	refused("what is not what its digest says", &rt.ImageSpec{Image: ref})
	r.lie = nil
	if _, features := x.features(); features != nil { // which came before handlers for images did
		refused("for a handler that nobody knows", &rt.ImageSpec{Image: ref, RuntimeHandler: "no-such-handler"})
	}
	must(r.pull(ref, nil))(x)
	x.equal("there when the registry tells the truth", x.image(ref) != nil, true)
}
