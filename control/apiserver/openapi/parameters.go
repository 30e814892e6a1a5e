package openapi

import (
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/kinds"
)

// parameter is one parameter, in the query unless in says otherwise.
type parameter struct{ name, in, kind, about string }

var (
	pretty = parameter{name: "pretty", kind: "string", about: "If 'true', then the output is pretty printed. Defaults to 'false' unless the user-agent indicates a browser or command-line HTTP tool (curl and wget)."}
	// restOfPath is where a connection leads.
	restOfPath = parameter{name: "path", in: "path", kind: "string", about: "path to the resource"}

	listing  = fieldsOf(metav1.ListOptions{})
	reading  = fieldsOf(metav1.GetOptions{})
	creating = fieldsOf(metav1.CreateOptions{})
	updating = fieldsOf(metav1.UpdateOptions{})
	patching = fieldsOf(metav1.PatchOptions{})
	deleting = fieldsOf(metav1.DeleteOptions{})
	// deletingAll chooses what goes, as a list does.
	deletingAll = slices.Concat(deleting, slices.DeleteFunc(fieldsOf(metav1.ListOptions{}), func(p parameter) bool {
		return p.name == "watch" || p.name == "allowWatchBookmarks"
	}))
)

// fieldsOf are the fields of options as parameters, by name. What a query cannot say
// is left out.
func fieldsOf(options any) (params []parameter) {
	about := map[string]string{}
	if told, ok := options.(interface{ SwaggerDoc() map[string]string }); ok {
		about = told.SwaggerDoc()
	}
	of := reflect.TypeOf(options)
	for i := range of.NumField() {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if kind := queryKind(of.Field(i).Type); name != "" && kind != "" {
			params = append(params, parameter{name: name, kind: kind, about: about[name]})
		}
	}
	slices.SortFunc(params, func(a, b parameter) int { return strings.Compare(a.name, b.name) })
	return params
}

// queryKind is how a field is told in a query; "" for what is not.
func queryKind(t reflect.Type) string {
	if t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int32, reflect.Int64:
		return "integer"
	}
	return ""
}

// optionsOf are the parameters of a subresource that is told in a query; nil for one
// that takes an object.
func optionsOf(sub kinds.Subresource) []parameter {
	if sub.New == nil {
		return nil
	}
	options := reflect.Indirect(reflect.ValueOf(sub.New()))
	if options.Kind() != reflect.Struct || !strings.HasSuffix(options.Type().Name(), "Options") {
		return nil
	}
	return fieldsOf(options.Interface())
}
