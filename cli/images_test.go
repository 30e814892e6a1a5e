package cli

import (
	"bytes"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/sampan-dev/sampan/node/image"
)

// known are three images: two names of one, one of another registry, and none.
func someImages() []image.Image {
	return []image.Image{
		{ID: "sha256:" + "aaaaaaaaaaaabbbb", Tags: []string{"docker.io/library/app:1", "docker.io/library/app:2"}, Size: 1000, Manifest: digest.Digest("sha256:mm")},
		{ID: "sha256:" + "cccccccccccc", Tags: []string{"registry.test:5000/team/web:v1"}, Config: ocispec.Image{Config: ocispec.ImageConfig{Labels: map[string]string{"tier": "front"}}}},
		{ID: "sha256:" + "dddddddddddd", Pinned: true},
	}
}

func TestImagesShown(t *testing.T) {
	for _, c := range []struct {
		show imagesFormat
		want string
	}{
		{imagesFormat{quiet: true, format: "table"}, "aaaaaaaaaaaa\ncccccccccccc\ndddddddddddd\n"},
		{imagesFormat{format: "{{.Repository}}:{{.Tag}} {{.ID}}"}, "app:1 aaaaaaaaaaaa\napp:2 aaaaaaaaaaaa\nregistry.test:5000/team/web:v1 cccccccccccc\n<none>:<none> dddddddddddd\n"},
		{imagesFormat{format: "table {{.Tag}}", whole: true, filters: []string{"reference=app"}}, "TAG\n1\n2\n"},
		{imagesFormat{format: "table", digests: true, filters: []string{"reference=app:1"}}, "REPOSITORY   TAG   DIGEST      IMAGE ID       AGE   SIZE\n" +
			"app          1     sha256:mm   aaaaaaaaaaaa   -     1.0 kB\napp          2     sha256:mm   aaaaaaaaaaaa   -     1.0 kB\n"},
		{imagesFormat{quiet: true, format: "table", filters: []string{"dangling=true"}}, "dddddddddddd\n"},
		{imagesFormat{quiet: true, format: "table", filters: []string{"pinned=true"}}, "dddddddddddd\n"},
		{imagesFormat{quiet: true, format: "table", filters: []string{"label=tier=front", "dangling=false"}}, "cccccccccccc\n"},
		{imagesFormat{quiet: true, format: "table", filters: []string{"reference=team/*", "reference=nothing"}}, "cccccccccccc\n"},
		{imagesFormat{quiet: true, format: "table", filters: []string{"reference=pp"}}, ""},
		{imagesFormat{quiet: true, format: "table", filters: []string{"until=2000-01-01T00:00:00Z", "dangling=true"}}, "dddddddddddd\n"},
		{imagesFormat{quiet: true, format: "table", filters: []string{"before=d"}}, ""},
		{imagesFormat{quiet: true, format: "table", filters: []string{"since=d"}}, ""},
	} {
		keep, err := imageFilters(c.show.filters, someImage)
		if err != nil {
			t.Fatal(err)
		}
		var list []image.Image
		for _, img := range someImages() {
			if keep(img) {
				list = append(list, img)
			}
		}
		var out bytes.Buffer
		if err := c.show.print(&out, list); err != nil || out.String() != c.want {
			t.Errorf("%+v: %v\n%q, want\n%q", c.show, err, out.String(), c.want)
		}
	}
	for _, bad := range []string{"dangling", "dangling=maybe", "colour=red", "reference=[", "x", "before=nothing", "until=yesterday"} {
		if _, err := imageFilters([]string{bad}, someImage); err == nil {
			t.Errorf("--filter %q was taken", bad)
		}
	}
}

// someImage is the last of some images, when it is asked for.
func someImage(name string) (image.Image, error) {
	if name != "d" {
		return image.Image{}, image.ErrNotFound
	}
	list := someImages()
	return list[len(list)-1], nil
}

// An ID with names in several repositories is not removed without force, a name is.
func TestRemovable(t *testing.T) {
	several := image.Image{ID: "sha256:aaaaaaaaaaaabbbb", Tags: []string{"docker.io/library/app:1", "registry.test:5000/app:1"}, Digests: []string{"docker.io/library/app@sha256:mm", "registry.test:5000/app@sha256:mm"}}
	one := image.Image{ID: "sha256:aaaaaaaaaaaabbbb", Tags: []string{"docker.io/library/app:1", "docker.io/library/app:2"}, Digests: []string{"docker.io/library/app@sha256:mm"}}
	for _, c := range []struct {
		img image.Image
		ref string
		ok  bool
	}{
		{several, "aaaaaaaaaaaa", false}, {several, "app:1", true}, {several, "registry.test:5000/app:1", true},
		{one, "aaaaaaaaaaaa", true}, {image.Image{Pinned: true}, "x", false},
	} {
		if err := removable(c.img, c.ref); (err == nil) != c.ok {
			t.Errorf("%v as %s: %v", c.img.Tags, c.ref, err)
		}
	}
}

// A template of inspect has the names that inspect shows.
func TestInspectFormat(t *testing.T) {
	img := someImages()[0]
	img.Config.Config.Cmd = []string{"sh", "-c"}
	var out bytes.Buffer
	if err := inspectWith(&out, `{{.ID}} {{.Size}} {{join .Tags ","}} {{json .Config.config.Cmd}}`, img); err != nil {
		t.Fatal(err)
	}
	const want = "sha256:aaaaaaaaaaaabbbb 1000 docker.io/library/app:1,docker.io/library/app:2 [\"sh\",\"-c\"]\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	if err := inspectWith(&out, "{{.Nothing}}", img); err == nil {
		t.Error("a field that there isn't was shown")
	}
}

// An image's instructions, by the names that docker's templates have.
func TestHistory(t *testing.T) {
	img := image.Image{ID: "sha256:0123456789abcdef", Layers: []ocispec.Descriptor{{Size: 1000}}}
	img.Config.History = []ocispec.History{{CreatedBy: "COPY a /"}, {CreatedBy: "CMD   " + strings.Repeat("x", 100), EmptyLayer: true, Comment: "c"}}
	for format, want := range map[string]string{
		"{{.ID}} {{.Size}} {{len .CreatedBy}}|{{.Comment}}": "0123456789ab 0 B 80|c\n<missing> 1.0 kB 8|\n",
		"table {{.ID}} {{.CreatedBy}}":                      "IMAGE CREATED BY\n0123456789ab CMD " + strings.Repeat("x", 73) + "...\n<missing> COPY a /\n",
	} {
		var out strings.Builder
		if err := (historyFormat{format: format}).print(&out, img); err != nil || out.String() != want {
			t.Errorf("%s: %q, %v; want %q", format, out.String(), err, want)
		}
	}
	var out strings.Builder
	if err := (historyFormat{}).print(&out, img); err != nil || !strings.HasPrefix(out.String(), "AGE") || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("%q, %v", out.String(), err)
	}
}

// A repository is shown as people say it.
func TestFamiliar(t *testing.T) {
	for full, want := range map[string]string{
		"docker.io/library/app": "app", "docker.io/team/app": "team/app", "localhost/app": "localhost/app",
		"registry.test:5000/library/app": "registry.test:5000/library/app", "docker.io.test/app": "docker.io.test/app",
	} {
		if got := familiar(full); got != want {
			t.Errorf("%s is shown as %q, want %q", full, got, want)
		}
	}
}

// What --change may say needs no RUN and no context.
func TestChanges(t *testing.T) {
	if err := checkChanges([]string{`CMD ["a"]`, "env A=1", " EXPOSE 80"}); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"RUN rm /x", "COPY a b", "FROM x", "", "ENV A=1\nRUN x"} {
		if err := checkChanges([]string{bad}); err == nil {
			t.Errorf("--change %q was taken", bad)
		}
	}
}
