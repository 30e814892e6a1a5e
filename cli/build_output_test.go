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
		{buildFlags{outputs: []string{"type=image,compression=zstd"}}, "compressed with gzip"},
		{buildFlags{outputs: []string{"type=image,oci-mediatypes=false"}}, "the OCI's media types"},
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
