package typed

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kube-openapi/pkg/schemaconv"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/schema"
	"sigs.k8s.io/structured-merge-diff/v6/typed"

	"github.com/sampan-dev/sampan/control/apiserver/openapi"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/kinds"
	table "github.com/sampan-dev/sampan/kinds/all"
)

var update = flag.Bool("update", false, "write schema.bin anew")

// schema.bin is what client-go and, for kinds that it leaves out, the published
// schemas say.
func TestSchema(t *testing.T) {
	want := wanted(t)
	if *update {
		if err := os.WriteFile("schema.bin", pack(t, want), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Log("written")
		return
	}
	got, err := unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	again, err := unpack(pack(t, want)) // numbers of defaults are those of JSON there, too
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(again) {
		t.Fatalf("schema.bin has %d types, want %d: run this test with -update", len(got), len(again))
	}
	for i := range again {
		if !reflect.DeepEqual(&got[i], &again[i]) {
			t.Errorf("schema.bin is out of date at %q, want %q: run this test with -update", got[i].Name, again[i].Name)
		}
	}
}

// Every built-in kind that is stored has a typed schema.
func TestEveryKind(t *testing.T) {
	types, err := Converter(scheme.Scheme())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range table.Kinds() {
		if k.Storage == "" {
			continue
		}
		obj := k.New()
		if _, untyped := obj.(runtime.Unstructured); untyped {
			continue
		}
		obj.GetObjectKind().SetGroupVersionKind(k.GVK)
		if _, err := types.ObjectToTyped(obj); err != nil {
			t.Errorf("%s: %v", k.GVK, err)
		}
	}
}

// What is damaged is an error, never a panic.
func TestDamaged(t *testing.T) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if _, err := raw.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	for cut := range 200 {
		if _, err := unpack(zipped(t, raw.Bytes()[:raw.Len()*cut/200])); err == nil {
			t.Errorf("the first %d of %d bytes pass for the whole", raw.Len()*cut/200, raw.Len())
		}
	}
}

// wanted is client-go's schema and what is missing in it.
func wanted(t *testing.T) []schema.TypeDef {
	base, err := typed.NewParser(typed.YAMLObject(clientGo(t)))
	if err != nil {
		t.Fatal(err)
	}
	types := base.Schema.Types
	for _, k := range table.Kinds() {
		obj := k.New()
		if _, untyped := obj.(runtime.Unstructured); untyped || k.Storage == "" {
			continue
		}
		name, err := scheme.Scheme().ToOpenAPIDefinitionName(k.GVK)
		if err != nil {
			t.Fatal(err)
		}
		if !has(types, name) {
			for _, more := range published(t, k) {
				if !has(types, more.Name) {
					types = append(types, more)
				}
			}
		}
	}
	return types
}

func has(types []schema.TypeDef, name string) bool {
	return slices.ContainsFunc(types, func(d schema.TypeDef) bool { return d.Name == name })
}

// clientGo is the YAML in client-go's source, which exports only what it parses to.
func clientGo(t *testing.T) (text string) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/client-go").Output()
	if err != nil {
		t.Skipf("the source of client-go is not at hand: %v", err)
	}
	file := filepath.Join(strings.TrimSpace(string(dir)), "applyconfigurations", "internal", "internal.go")
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(parsed, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && len(lit.Value) > len(text) {
			text = lit.Value
		}
		return true
	})
	if text, err = strconv.Unquote(text); err != nil {
		t.Fatal(err)
	}
	return text
}

// published are the types that the server's own schemas have for a kind's group.
func published(t *testing.T, k *kinds.Kind) []schema.TypeDef {
	h := openapi.New(func() []*kinds.Kind { return []*kinds.Kind{k} }, nil)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/openapi/v3/apis/"+k.GVK.Group+"/"+k.GVK.Version, nil))
	var doc spec3.OpenAPI
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
		t.Fatalf("%s: %v: %s", k.GVK, err, w.Body)
	}
	models := map[string]*spec.Schema{}
	for name, model := range doc.Components.Schemas {
		models[name] = model
	}
	made, err := schemaconv.ToSchemaFromOpenAPI(models, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range made.Types {
		if d.Map != nil {
			slices.SortFunc(d.Fields, func(a, b schema.StructField) int { return strings.Compare(a.Name, b.Name) })
		}
	}
	slices.SortFunc(made.Types, func(a, b schema.TypeDef) int { return strings.Compare(a.Name, b.Name) })
	return made.Types
}

// pack writes the format that unpack reads.
func pack(t *testing.T, types []schema.TypeDef) []byte {
	w := &writer{t: t, places: map[string]uint64{}}
	w.number(uint64(len(types)))
	for _, d := range types {
		w.word(d.Name)
		w.atom(d.Atom)
	}
	raw := binary.AppendUvarint(nil, uint64(len(w.words)))
	for _, word := range w.words {
		raw = append(binary.AppendUvarint(raw, uint64(len(word))), word...)
	}
	return zipped(t, append(raw, w.b...))
}

func zipped(t *testing.T, raw []byte) []byte {
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type writer struct {
	t      *testing.T
	b      []byte
	words  []string
	places map[string]uint64
}

func (w *writer) number(n uint64) { w.b = binary.AppendUvarint(w.b, n) }

func (w *writer) word(s string) {
	place, ok := w.places[s]
	if !ok {
		place = uint64(len(w.words))
		w.words, w.places[s] = append(w.words, s), place
	}
	w.number(place)
}

func (w *writer) atom(a schema.Atom) {
	parts := uint64(0)
	for bit, is := range map[uint64]bool{hasScalar: a.Scalar != nil, hasList: a.List != nil, hasMap: a.Map != nil} {
		if is {
			parts |= bit
		}
	}
	w.number(parts)
	if a.Scalar != nil {
		w.word(string(*a.Scalar))
	}
	if a.List != nil {
		w.reference(a.List.ElementType)
		w.word(string(a.List.ElementRelationship))
		w.number(uint64(len(a.Keys)))
		for _, key := range a.Keys {
			w.word(key)
		}
	}
	if a.Map != nil {
		w.reference(a.Map.ElementType)
		w.word(string(a.Map.ElementRelationship))
		w.number(uint64(len(a.Fields)))
		for _, f := range a.Fields {
			w.word(f.Name)
			w.reference(f.Type)
			w.value(f.Default)
		}
		w.unions(a.Unions)
	}
}

func (w *writer) value(v any) {
	if v == nil {
		w.word("")
		return
	}
	raw, err := json.Marshal(plain(v))
	if err != nil {
		w.t.Fatal(err)
	}
	w.word(string(raw))
}

// plain is what YAML gives, as JSON can have it.
func plain(v any) any {
	from, ok := v.(map[any]any)
	if !ok {
		return v
	}
	to := map[string]any{}
	for key, value := range from {
		to[key.(string)] = plain(value)
	}
	return to
}

func (w *writer) reference(r schema.TypeRef) {
	parts := uint64(0)
	if r.NamedType != nil {
		parts |= isNamed
	}
	if r.ElementRelationship != nil {
		parts |= hasRelationship
	}
	if r.Nullable {
		parts |= isNullable
	}
	w.number(parts)
	if r.NamedType != nil {
		w.word(*r.NamedType)
	} else {
		w.atom(r.Inlined)
	}
	if r.ElementRelationship != nil {
		w.word(string(*r.ElementRelationship))
	}
}

func (w *writer) unions(unions []schema.Union) {
	w.number(uint64(len(unions)))
	for _, u := range unions {
		if u.Discriminator != nil {
			w.number(1)
			w.word(*u.Discriminator)
		} else {
			w.number(0)
		}
		if u.DeduceInvalidDiscriminator {
			w.number(1)
		} else {
			w.number(0)
		}
		w.number(uint64(len(u.Fields)))
		for _, f := range u.Fields {
			w.word(f.FieldName)
			w.word(f.DiscriminatorValue)
		}
	}
}

func BenchmarkConverter(b *testing.B) {
	for b.Loop() {
		if _, err := Converter(scheme.Scheme()); err != nil {
			b.Fatal(err)
		}
	}
}
