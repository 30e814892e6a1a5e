package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// Outputs are read as docker reads them; what cannot be is said.
func TestOutputs(t *testing.T) {
	for _, c := range []struct {
		flags buildFlags
		want  string
	}{
		{buildFlags{}, "[]"},
		{buildFlags{outputs: []string{"dir"}}, "[{local dir false}]"},
		{buildFlags{outputs: []string{"-"}}, "[{tar - false}]"},
		{buildFlags{outputs: []string{"type=image"}}, "[]"},
		{buildFlags{outputs: []string{"type=image,name=a,push=true"}}, "[{registry - false}] a"},
		{buildFlags{outputs: []string{`type=image,"name=a:1,b:2"`, "type=oci,dest=x.tar"}}, "[{oci x.tar false}] a:1 b:2"},
		{buildFlags{outputs: []string{"type=oci,dest=d,tar=false,compression=gzip"}}, "[{oci d true}]"},
		{buildFlags{outputs: []string{"type=local,dest=d"}, platforms: []string{"a", "b"}}, "[{local d false}]"},
		{buildFlags{outputs: []string{"type=image,annotation.k=v"}}, "[] k=v"},
		{buildFlags{outputs: []string{"type=cacheonly"}}, "[]"},
		{buildFlags{push: true, tags: []string{"a"}}, "[{registry - false}] a"},
		{buildFlags{push: true}, "a registry wants a name"},
		{buildFlags{push: true, tags: []string{"a"}, outputs: []string{"dir"}}, "exclude each other"},
		{buildFlags{outputs: []string{"type=local"}}, "say where with dest=DIRECTORY"},
		{buildFlags{outputs: []string{"type=docker"}, platforms: []string{"a", "b"}}, "room for one --platform"},
		{buildFlags{outputs: []string{"type=local,dest=d,platform-split=false"}, platforms: []string{"a", "b"}}, "in each other's way"},
		{buildFlags{outputs: []string{"type=tar,dest=d,tar=false"}}, "wants type=oci or docker"},
		{buildFlags{outputs: []string{"type=tar", "type=oci"}}, "room for one --output"},
		{buildFlags{outputs: []string{"type=odd"}}, "want a directory, or type="},
		{buildFlags{outputs: []string{"type=oci,colour=red"}}, `"colour" is unknown`},
		{buildFlags{outputs: []string{"type=image,compression=zstd,compression-level=19,force-compression=true,oci-mediatypes=false"}}, "[]"},
		{buildFlags{outputs: []string{"type=image,compression=zstd", "type=oci,dest=x,compression=zstd"}}, "[{oci x false}]"},
		{buildFlags{outputs: []string{"type=image,compression=zstd", "type=oci,dest=x,compression=gzip"}}, "compression=gzip, and zstd before: all outputs of a build are one image"},
		{buildFlags{outputs: []string{"type=image,compression=estargz"}}, "not made here: want gzip, zstd or uncompressed"},
		{buildFlags{outputs: []string{"type=image,compression=lz4"}}, `compression "lz4": want`},
		{buildFlags{outputs: []string{"type=image,compression-level=10"}}, "level 10: want 0 to 9"},
		{buildFlags{outputs: []string{"type=image,compression=zstd,compression-level=23"}}, "level 23: want 0 to 22"},
		{buildFlags{outputs: []string{"type=image,oci-mediatypes=perhaps"}}, "oci-mediatypes=perhaps"},
	} {
		f := c.flags
		outs, err := parseOutputs(&f, &bytes.Buffer{})
		got := strings.TrimSpace(fmt.Sprintf("%v %s", outs, strings.Join(append(f.tags, f.annotations...), " ")))
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%+v:\n%s, want\n%s", c.flags, got, c.want)
		}
	}
}

// Annotations say of what they are, and only manifests have any.
func TestManifestNotes(t *testing.T) {
	got, err := manifestNotes([]string{"a=b", "manifest:c=d:e", "x:y=z"})
	if err != nil || fmt.Sprint(got) != "map[a:b c:d:e x:y:z]" {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"index:a=b", "manifest,index:a=b", "index-descriptor:a=b"} {
		if _, err := manifestNotes([]string{bad}); err == nil || !strings.Contains(err.Error(), "only manifests") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// What cannot be is said before anything is built.
func TestBuildWords(t *testing.T) {
	got, err := hostLines([]string{"db:10.0.0.1", "six=[::1]", "host.docker.internal:host-gateway"})
	if err != nil || fmt.Sprint(got) != "[10.0.0.1 db ::1 six 127.0.0.1 host.docker.internal]" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := secrets([]string{"id=x,src=" + t.TempDir() + "/none"}); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("a secret that is not there: %v", err)
	}
}
