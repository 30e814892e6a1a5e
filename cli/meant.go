package cli

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/client"
)

// nameable are the kinds that a bare name may be of, beside pods: what runs pods, is
// reached by them, or has them.
var nameable = []struct {
	kind string
	get  func(ctx context.Context, s *server, namespace, name string) error
}{
	{"deployment", is(client.Deployments)}, {"statefulset", is(client.StatefulSets)}, {"daemonset", is(client.DaemonSets)},
	{"job", is(client.Jobs)}, {"cronjob", is(client.CronJobs)}, {"replicaset", is(client.ReplicaSets)},
	{"service", is(client.Services)}, {"persistentvolumeclaim", is(client.PersistentVolumeClaims)},
	{"node", func(ctx context.Context, s *server, _, name string) error {
		_, err := client.Nodes.Get(ctx, s, "", name)
		return err
	}},
}

// is asks whether there is such an object.
func is[T client.Object](kind client.Resource[T]) func(ctx context.Context, s *server, namespace, name string) error {
	return func(ctx context.Context, s *server, namespace, name string) error {
		_, err := kind.Get(ctx, s, namespace, name)
		return err
	}
}

// meant is the object that a person names: as TYPE/NAME, TYPE NAME, or by its name alone,
// when one object has that. What the person may not see is not meant.
func (s *server) meant(ctx context.Context, args []string, namespace string) (object, error) {
	name := args[0]
	if len(args) != 1 || strings.Contains(name, "/") {
		return parseObject(args, namespace)
	}
	var found []object
	pod, missing := s.named(ctx, namespace, name)
	switch {
	case missing == nil:
		found = append(found, object{"pod", pod.Namespace, pod.Name})
	case !apierrors.IsNotFound(missing) && !apierrors.IsForbidden(missing):
		return object{}, missing
	}
	for _, k := range nameable {
		err := k.get(ctx, s, namespace, name)
		if err == nil {
			found = append(found, object{k.kind, namespace, name})
		} else if !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			return object{}, err
		}
	}
	switch len(found) {
	case 0:
		return object{}, fmt.Errorf("nothing in namespace %s is called %q: sampan ps -a and sampan kubectl get all list what there is", namespace, name)
	case 1:
		return found[0], nil
	}
	var all []string
	for _, o := range found {
		all = append(all, o.kind+"/"+o.name)
	}
	return object{}, fmt.Errorf("%q is the name of %d objects: say which, %s", name, len(found), strings.Join(all, " or "))
}
