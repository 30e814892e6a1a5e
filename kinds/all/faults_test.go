package all

import (
	"flag"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/kinds"
)

var rewrite = flag.Bool("update", false, "write what was seen into testdata")

// Each transcript in testdata holds blocks of
//
//	# what is tried
//	create KIND            (or: update KIND, status KIND)
//	yaml of the object     (for update and status: the old one, a line "->", the new one)
//	----
//	one fault a line, in order
//
// separated by empty lines. Run with -update and read the difference.
func TestFaults(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			seen := replay(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(seen), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			compare(t, string(text), seen)
		})
	}
}

func compare(t *testing.T, want, got string) {
	t.Helper()
	wants, gots := strings.Split(want, "\n\n"), strings.Split(got, "\n\n")
	for i := range gots {
		if i >= len(wants) || strings.TrimSpace(gots[i]) != strings.TrimSpace(wants[i]) {
			t.Errorf("got:\n%s", gots[i])
		}
	}
}

// replay runs every block and returns the transcript with what was seen.
func replay(t *testing.T, text string) string {
	var out []string
	for _, block := range strings.Split(strings.TrimSpace(text), "\n\n") {
		said, _, _ := strings.Cut(block, "\n----")
		lines := strings.Split(said, "\n")
		head := 0
		for head < len(lines) && strings.HasPrefix(lines[head], "#") {
			head++
		}
		verb, name, ok := strings.Cut(lines[head], " ")
		if !ok {
			t.Fatalf("block has no verb:\n%s", block)
		}
		faults := run(t, verb, lookup(t, name), strings.Join(lines[head+1:], "\n"))
		out = append(out, strings.TrimRight(said+"\n----\n"+faults, "\n"))
	}
	return strings.Join(out, "\n\n") + "\n"
}

func lookup(t *testing.T, name string) *kinds.Kind {
	for _, kind := range Kinds() {
		if kind.GVK.Kind == name {
			return kind
		}
	}
	t.Fatalf("no kind %q", name)
	return nil
}

func parse(t *testing.T, kind *kinds.Kind, text string) kinds.Object {
	obj := kind.New()
	obj.SetName("x")
	obj.SetUID("u1")
	if kind.Namespaced {
		obj.SetNamespace("default")
	}
	if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
		t.Fatalf("%s: %v\n%s", kind.GVK.Kind, err, text)
	}
	return obj
}

func run(t *testing.T, verb string, kind *kinds.Kind, text string) string {
	before, after, _ := strings.Cut(text, "\n->\n")
	old := parse(t, kind, before)
	given := old.DeepCopyObject().(kinds.Object)
	create(kind, old)
	s := kind.Strategy
	switch verb {
	case "create":
		return list(s.Validate(old))
	case "update":
		obj := parse(t, kind, after)
		if s.Default != nil {
			s.Default(obj)
		}
		if s.PrepareUpdate != nil {
			s.PrepareUpdate(obj, old)
		}
		return list(s.ValidateUpdate(obj, old))
	case "status":
		sub := status(t, kind)
		stored := old.DeepCopyObject().(kinds.Object)
		if err := sub.Copy(stored, given); err != nil {
			t.Fatal(err)
		}
		next := stored.DeepCopyObject().(kinds.Object)
		body := parse(t, kind, after)
		if s.Default != nil {
			s.Default(body)
		}
		if err := sub.Copy(next, body); err != nil {
			t.Fatal(err)
		}
		return list(sub.ValidateUpdate(next, stored))
	}
	t.Fatalf("unknown verb %q", verb)
	return ""
}

func status(t *testing.T, kind *kinds.Kind) kinds.Subresource {
	for _, sub := range kind.Subresources {
		if sub.Name == "status" {
			return sub
		}
	}
	t.Fatalf("%s has no status", kind.GVK.Kind)
	return kinds.Subresource{}
}

func list(errs field.ErrorList) string {
	all := make([]string, 0, len(errs))
	for _, err := range errs {
		all = append(all, strings.ReplaceAll(err.Error(), "\n", "\\n"))
	}
	sort.Strings(all)
	return strings.Join(all, "\n")
}
