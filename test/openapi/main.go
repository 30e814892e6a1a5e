// Command openapi writes the schemas of all built-in kinds, compressed, for the
// API server to embed. It is run by hand when the k8s.io libraries change:
//
//	cd test/openapi && ./generate.sh
//
// It is a module of its own because openapi-gen and its output (67,000 lines)
// are not for the binary.
package main

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"reflect"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/sampan-dev/sampan/test/openapi/generated"
)

// gvkExtension is how clients find the schema of a kind.
const gvkExtension = "x-kubernetes-group-version-kind"

func main() {
	if err := write(os.Args[1]); err != nil {
		log.Fatal(err)
	}
}

func write(path string) error {
	out := map[string]spec.Schema{}
	ref := func(name string) spec.Ref {
		return spec.MustCreateRef("#/definitions/" + name)
	}
	kinds := kindsByModel()
	for name, def := range generated.GetOpenAPIDefinitions(ref) {
		s := def.Schema
		if gvks := kinds[name]; len(gvks) > 0 {
			if s.Extensions == nil {
				s.Extensions = spec.Extensions{}
			}
			s.Extensions[gvkExtension] = gvks
		}
		out[name] = s
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode definitions: %w", err)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	z, err := gzip.NewWriterLevel(f, gzip.BestCompression)
	if err != nil {
		return err
	}
	if _, err := z.Write(raw); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	fmt.Printf("%d definitions, %d bytes\n", len(out), len(raw))
	return f.Close()
}

// kindsByModel maps a schema's name to the kinds that the type stands for.
func kindsByModel() map[string][]any {
	byModel := map[string][]schema.GroupVersionKind{}
	for _, add := range []func(*runtime.Scheme) error{apiextensionsv1.AddToScheme, apiregistrationv1.AddToScheme, metricsv1beta1.AddToScheme} {
		if err := add(scheme.Scheme); err != nil {
			log.Fatal(err)
		}
	}
	for gvk, t := range scheme.Scheme.AllKnownTypes() {
		model := modelOf(t)
		if gvk.Version == "__internal" || gvk.Group == metricsv1beta1.GroupName && !strings.HasPrefix(model, "io.k8s.metrics.") {
			continue // options are listed for the groups alone that kube-apiserver itself has
		}
		byModel[model] = append(byModel[model], gvk)
	}
	out := map[string][]any{}
	for model, gvks := range byModel {
		slices.SortFunc(gvks, func(a, b schema.GroupVersionKind) int { return strings.Compare(a.String(), b.String()) })
		for _, g := range gvks {
			out[model] = append(out[model], map[string]any{"group": g.Group, "version": g.Version, "kind": g.Kind})
		}
	}
	return out
}

func modelOf(t reflect.Type) string {
	if named, ok := reflect.New(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return named.OpenAPIModelName()
	}
	return util.ToRESTFriendlyName(t.PkgPath() + "." + t.Name())
}
