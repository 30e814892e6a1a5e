package all

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/kinds"
)

// goldenDir is where k8s.io/api keeps an example of each kind with every field
// set, or "" where the module cache is without it.
func goldenDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Skipf("no golden objects: go list: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("no golden objects: %v", err)
	}
	return dir
}

// golden reads the example of a kind.
func golden(t *testing.T, dir string, kind *kinds.Kind) kinds.Object {
	t.Helper()
	group := kind.GVK.Group
	if group == "" {
		group = "core"
	}
	name := group + "." + kind.GVK.Version + "." + kind.GVK.Kind + ".yaml"
	text, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) { // kinds whose types are not in k8s.io/api
		text, err = os.ReadFile(filepath.Join("testdata", "golden", name))
	}
	if err != nil {
		t.Fatalf("read golden %s: %v", kind.GVK.Kind, err)
	}
	obj := kind.New()
	if err := yaml.UnmarshalStrict(text, obj); err != nil {
		t.Fatalf("decode golden %s: %v", kind.GVK.Kind, err)
	}
	return obj
}

// full hands each kind's golden object to a test.
func full(t *testing.T, test func(t *testing.T, kind *kinds.Kind, obj kinds.Object)) {
	dir := goldenDir(t)
	for _, kind := range Kinds() {
		t.Run(kind.GVK.Kind+"."+kind.GVK.Group, func(t *testing.T) { test(t, kind, golden(t, dir, kind)) })
	}
}

// What is stored as protobuf must come back as it was.
func TestGoldenRoundTrip(t *testing.T) {
	coder := protobuf.NewSerializer(scheme.Scheme(), scheme.Scheme())
	full(t, func(t *testing.T, kind *kinds.Kind, obj kinds.Object) {
		obj.GetObjectKind().SetGroupVersionKind(kind.GVK)
		stored, err := runtime.Encode(coder, obj)
		if err != nil {
			t.Fatal(err)
		}
		back := kind.New()
		if _, _, err := coder.Decode(stored, nil, back); err != nil {
			t.Fatal(err)
		}
		back.GetObjectKind().SetGroupVersionKind(kind.GVK)
		if !equality.Semantic.DeepEqual(obj, back) {
			t.Error("protobuf round trip changed the object")
		}
		if kind.View == nil {
			return
		}
		again := kind.View.FromStored(kind.View.ToStored(obj))
		if !equality.Semantic.DeepEqual(obj, again) {
			t.Errorf("viewing what was stored changed the object:\n%+v\n%+v", obj, again)
		}
	})
}

// Defaults run on every read-modify-write: twice must be as good as once.
func TestDefaultIsIdempotent(t *testing.T) {
	check := func(t *testing.T, kind *kinds.Kind, obj kinds.Object) {
		if kind.Strategy.Default == nil {
			return
		}
		kind.Strategy.Default(obj)
		once := obj.DeepCopyObject()
		kind.Strategy.Default(obj)
		if !equality.Semantic.DeepEqual(once, obj) {
			t.Errorf("second default changed the object:\n%+v\n%+v", once, obj)
		}
	}
	full(t, check)
	for _, kind := range Kinds() {
		t.Run("empty "+kind.GVK.Kind, func(t *testing.T) { check(t, kind, kind.New()) })
	}
}

// kubectl prints cells by position.
func TestRowsMatchColumns(t *testing.T) {
	check := func(t *testing.T, kind *kinds.Kind, obj kinds.Object) {
		if kind.Table.Row == nil {
			if kind.Storage != "" {
				t.Error("a stored kind has no table")
			}
			return
		}
		cells := kind.Table.Row(obj, time.Unix(1<<31, 0))
		if len(cells) != len(kind.Table.Columns) {
			t.Errorf("%d cells for %d columns: %v", len(cells), len(kind.Table.Columns), cells)
		}
	}
	full(t, check)
	for _, kind := range Kinds() {
		t.Run("empty "+kind.GVK.Kind, func(t *testing.T) { check(t, kind, kind.New()) })
	}
}

// What a column means is part of a table; upstream explains all but these.
func TestColumnsAreExplained(t *testing.T) {
	silent := map[string]bool{"runtimeclasses Handler": true}
	for _, kind := range Kinds() {
		for _, column := range kind.Table.Columns {
			if name := kind.Resource + " " + column.Name; column.Description == "" && !silent[name] {
				t.Errorf("nothing explains %s", name)
			}
		}
	}
}

// What is stored is shared by everybody: an update may read it only.
func TestUpdatesLeaveTheOldObjectAlone(t *testing.T) {
	full(t, func(t *testing.T, kind *kinds.Kind, old kinds.Object) {
		s := kind.Strategy
		if s.Default != nil {
			s.Default(old)
		}
		before, obj := old.DeepCopyObject(), old.DeepCopyObject().(kinds.Object)
		if s.PrepareUpdate != nil {
			s.PrepareUpdate(obj, old)
		}
		if s.Default != nil {
			s.Default(obj)
		}
		if s.ValidateUpdate != nil {
			s.ValidateUpdate(obj, old)
		}
		for _, sub := range kind.Subresources {
			next := old.DeepCopyObject().(kinds.Object)
			if sub.Copy == nil || sub.New != nil {
				continue
			}
			if err := sub.Copy(next, obj); err != nil {
				t.Errorf("copy %q: %v", sub.Name, err)
			}
			if sub.ValidateUpdate != nil {
				sub.ValidateUpdate(next, old)
			}
		}
		if !equality.Semantic.DeepEqual(before, old) {
			t.Error("the old object has changed")
		}
	})
}

// Rules meet every field set at once, and none; they must find words, not panic.
func TestRulesSurviveAnything(t *testing.T) {
	check := func(t *testing.T, kind *kinds.Kind, obj kinds.Object) {
		old := obj.DeepCopyObject().(kinds.Object)
		s := kind.Strategy
		for _, change := range []func(kinds.Object){s.Default, s.PrepareCreate} {
			if change != nil {
				change(obj)
			}
		}
		if s.PrepareUpdate != nil {
			s.PrepareUpdate(obj, old)
		}
		if s.Validate != nil {
			s.Validate(obj)
		}
		if s.ValidateUpdate != nil {
			s.ValidateUpdate(obj, old)
			s.ValidateUpdate(kind.New(), obj)
			s.ValidateUpdate(obj, kind.New())
		}
		if s.Warnings != nil {
			s.Warnings(obj, nil)
			s.Warnings(obj, old)
		}
		if kind.Fields != nil {
			set := kind.Fields(obj)
			for label := range set {
				found := false
				for _, known := range kind.FieldLabels {
					found = found || known == label
				}
				if !found {
					t.Errorf("field %q is not among the labels", label)
				}
			}
		}
		for _, sub := range kind.Subresources {
			if sub.Show != nil {
				sub.Show(obj)
			}
			if sub.Copy != nil && sub.New == nil {
				if err := sub.Copy(old.DeepCopyObject().(kinds.Object), obj); err != nil {
					t.Errorf("copy %q: %v", sub.Name, err)
				}
			}
			if sub.ValidateUpdate != nil {
				sub.ValidateUpdate(obj, old)
			}
		}
	}
	full(t, check)
	for _, kind := range Kinds() {
		t.Run("empty "+kind.GVK.Kind, func(t *testing.T) { check(t, kind, kind.New()) })
	}
}
