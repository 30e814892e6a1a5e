package spec

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/node/volume"
	"github.com/sampan-dev/sampan/node/volume/downward"
)

// Var is one environment variable.
type Var struct{ Name, Value string }

// Environment resolves a container's environment.
type Environment struct {
	Pod       *corev1.Pod
	Container *corev1.Container
	Source    volume.Source
	Facts     downward.Facts
	// Services are those of the pod's namespace and default/kubernetes.
	Services []*corev1.Service
	// Paths are where the pod's volumes are on the host, by name.
	Paths map[string]string

	vars  []Var
	index map[string]int
}

// Resolve returns the variables in the order in which they were named first;
// a later one of the same name replaces the value. Services come first, then
// envFrom, then env.
func (e *Environment) Resolve(ctx context.Context) ([]Var, error) {
	e.vars, e.index = nil, map[string]int{}
	links := e.Pod.Spec.EnableServiceLinks == nil || *e.Pod.Spec.EnableServiceLinks
	for _, v := range ServiceVars(e.Services, e.Pod.Namespace, links) {
		e.set(v.Name, v.Value)
	}
	for i := range e.Container.EnvFrom {
		if err := e.from(ctx, &e.Container.EnvFrom[i]); err != nil {
			return nil, err
		}
	}
	for i := range e.Container.Env {
		if err := e.one(ctx, &e.Container.Env[i]); err != nil {
			return nil, err
		}
	}
	return e.vars, nil
}

func (e *Environment) set(name, value string) {
	if i, ok := e.index[name]; ok {
		e.vars[i].Value = value
		return
	}
	e.index[name] = len(e.vars)
	e.vars = append(e.vars, Var{name, value})
}

func (e *Environment) get(name string) (string, bool) {
	i, ok := e.index[name]
	if !ok {
		return "", false
	}
	return e.vars[i].Value, true
}

func missingIsFine(err error, optional *bool) bool {
	return apierrors.IsNotFound(err) && isTrue(optional)
}

func (e *Environment) from(ctx context.Context, f *corev1.EnvFromSource) error {
	values := map[string]string{}
	switch {
	case f.ConfigMapRef != nil:
		cm, err := e.Source.ConfigMap(ctx, e.Pod.Namespace, f.ConfigMapRef.Name)
		if missingIsFine(err, f.ConfigMapRef.Optional) {
			return nil
		}
		if err != nil {
			return err
		}
		values = cm.Data
	case f.SecretRef != nil:
		s, err := e.Source.Secret(ctx, e.Pod.Namespace, f.SecretRef.Name)
		if missingIsFine(err, f.SecretRef.Optional) {
			return nil
		}
		if err != nil {
			return err
		}
		for k, v := range s.Data {
			values[k] = string(v)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(values)) {
		e.set(f.Prefix+k, values[k])
	}
	return nil
}

func (e *Environment) one(ctx context.Context, v *corev1.EnvVar) error {
	if v.ValueFrom == nil {
		e.set(v.Name, Expand(v.Value, e.get))
		return nil
	}
	value, ok, err := e.valueFrom(ctx, v.ValueFrom)
	if err != nil {
		return err
	}
	if ok {
		e.set(v.Name, value)
	}
	return nil
}

// valueFrom resolves a reference; !ok leaves the variable out (optional).
func (e *Environment) valueFrom(ctx context.Context, from *corev1.EnvVarSource) (value string, ok bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = downward.Field(e.Pod, e.Facts, from.FieldRef.FieldPath)
		return value, err == nil, err
	case from.ResourceFieldRef != nil:
		c := e.Container
		if n := from.ResourceFieldRef.ContainerName; n != "" {
			c = downward.Container(e.Pod, n)
		}
		if c == nil {
			return "", false, fmt.Errorf("container %s not found", from.ResourceFieldRef.ContainerName)
		}
		value, err = downward.Resource(e.Pod, c, from.ResourceFieldRef, e.Facts.Allocatable)
		return value, err == nil, err
	case from.ConfigMapKeyRef != nil:
		return e.configMapKey(ctx, from.ConfigMapKeyRef)
	case from.SecretKeyRef != nil:
		return e.secretKey(ctx, from.SecretKeyRef)
	case from.FileKeyRef != nil:
		return e.fileKey(from.FileKeyRef)
	}
	return "", false, fmt.Errorf("environment variable has no known source")
}

func (e *Environment) configMapKey(ctx context.Context, ref *corev1.ConfigMapKeySelector) (string, bool, error) {
	cm, err := e.Source.ConfigMap(ctx, e.Pod.Namespace, ref.Name)
	if missingIsFine(err, ref.Optional) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	value, ok := cm.Data[ref.Key]
	if !ok && !isTrue(ref.Optional) {
		return "", false, fmt.Errorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, e.Pod.Namespace, ref.Name)
	}
	return value, ok, nil
}

func (e *Environment) secretKey(ctx context.Context, ref *corev1.SecretKeySelector) (string, bool, error) {
	s, err := e.Source.Secret(ctx, e.Pod.Namespace, ref.Name)
	if missingIsFine(err, ref.Optional) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	value, ok := s.Data[ref.Key]
	if !ok && !isTrue(ref.Optional) {
		return "", false, fmt.Errorf("couldn't find key %v in Secret %v/%v", ref.Key, e.Pod.Namespace, ref.Name)
	}
	return string(value), ok, nil
}

// Lookup finds variables by name, for Expand.
func Lookup(vars []Var) func(string) (string, bool) {
	index := make(map[string]string, len(vars))
	for _, v := range vars {
		index[v.Name] = v.Value
	}
	return func(name string) (string, bool) { v, ok := index[name]; return v, ok }
}

// Expand replaces $(NAME) by the variable's value. $$ is a literal $, and what
// names no known variable stays as it is.
func Expand(s string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		rest := s[i+1:]
		end := strings.IndexByte(rest, ')')
		switch {
		case rest[0] == '$':
			b.WriteByte('$')
			i++
		case rest[0] == '(' && end > 0:
			name := rest[1:end]
			if value, ok := lookup(name); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += end + 1
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// ServiceVars are the variables that tell a container where services are: those
// of its own namespace when links is set, and always default/kubernetes.
func ServiceVars(services []*corev1.Service, namespace string, links bool) []Var {
	chosen := map[string]*corev1.Service{}
	for _, s := range services {
		if s.Spec.ClusterIP == "" || s.Spec.ClusterIP == corev1.ClusterIPNone || len(s.Spec.Ports) == 0 {
			continue
		}
		master := s.Namespace == corev1.NamespaceDefault && s.Name == "kubernetes"
		if master && chosen[s.Name] == nil {
			chosen[s.Name] = s
		}
		if links && s.Namespace == namespace {
			chosen[s.Name] = s
		}
	}
	var vars []Var
	for _, name := range slices.Sorted(maps.Keys(chosen)) {
		vars = append(vars, serviceVars(chosen[name])...)
	}
	return vars
}

func varName(s string) string { return strings.ToUpper(strings.ReplaceAll(s, "-", "_")) }

func serviceVars(s *corev1.Service) []Var {
	prefix, ip := varName(s.Name), s.Spec.ClusterIP
	vars := []Var{
		{prefix + "_SERVICE_HOST", ip},
		{prefix + "_SERVICE_PORT", strconv.Itoa(int(s.Spec.Ports[0].Port))},
	}
	for _, p := range s.Spec.Ports {
		if p.Name != "" {
			vars = append(vars, Var{prefix + "_SERVICE_PORT_" + varName(p.Name), strconv.Itoa(int(p.Port))})
		}
	}
	for i, p := range s.Spec.Ports {
		proto := "tcp"
		if p.Protocol != "" {
			proto = strings.ToLower(string(p.Protocol))
		}
		port := strconv.Itoa(int(p.Port))
		url := proto + "://" + net.JoinHostPort(ip, port)
		if i == 0 {
			vars = append(vars, Var{prefix + "_PORT", url})
		}
		base := prefix + "_PORT_" + port + "_" + strings.ToUpper(proto)
		vars = append(vars, Var{base, url}, Var{base + "_PROTO", proto}, Var{base + "_PORT", port}, Var{base + "_ADDR", ip})
	}
	return vars
}
