package webhook

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/target"
)

// maxTries is how many endpoints are dialled before a connection is given up.
const maxTries = 3

// unreachable is a call that did not come as far as a connection.
type unreachable struct{ error }

func (u unreachable) Unwrap() error { return u.error }

// Unreachable says that nobody was there to be called: the service, its endpoints or
// what listens behind them is missing.
func Unreachable(err error) bool {
	var nobody unreachable
	return errors.As(err, &nobody)
}

// dial connects to one of the service's ready endpoints, another when one does
// not answer.
func (c *Caller) dial(ctx context.Context, s Service) (net.Conn, error) {
	addresses, err := c.resolve(ctx, s)
	if err != nil {
		return nil, unreachable{err}
	}
	rand.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
	var failed error
	for _, at := range addresses[:min(len(addresses), maxTries)] {
		conn, err := (&net.Dialer{Timeout: dialWait}).DialContext(ctx, "tcp", at)
		if err == nil {
			return conn, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, unreachable{failed}
}

// resolve gives the addresses that serve a service's port: never none without an
// error.
func (c *Caller) resolve(ctx context.Context, s Service) ([]string, error) {
	obj, err := c.objects.Get(ctx, target.Of(corev1.SchemeGroupVersion.WithResource("services"), s.Namespace).Object(s.Name), metav1.GetOptions{ResourceVersion: "0"})
	if apierrors.IsNotFound(err) {
		return nil, apierrors.NewNotFound(corev1.Resource("service"), s.Name) // upstream's words
	}
	if err != nil {
		return nil, err
	}
	svc, ok := obj.(*corev1.Service)
	if !ok {
		return nil, fmt.Errorf("service %q is a %T", s.Name, obj)
	}
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return []string{net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(s.port())))}, nil
	}
	port := portOf(svc, s.port())
	if port == nil {
		return nil, fmt.Errorf("no service port %d found for service %q", s.port(), s.Name)
	}
	ready, err := c.endpoints(ctx, s, port.Name)
	if err != nil {
		return nil, err
	}
	switch {
	case len(ready) > 0:
		return ready, nil
	case len(svc.Spec.Selector) == 0 && svc.Spec.ClusterIP != "" && svc.Spec.ClusterIP != corev1.ClusterIPNone:
		// Somebody else's endpoints: only the service proxy may know them.
		return []string{net.JoinHostPort(svc.Spec.ClusterIP, strconv.Itoa(int(port.Port)))}, nil
	}
	return nil, fmt.Errorf("no endpoints available for service %q", s.Name)
}

func portOf(svc *corev1.Service, number int32) *corev1.ServicePort {
	for i := range svc.Spec.Ports {
		if svc.Spec.Ports[i].Port == number {
			return &svc.Spec.Ports[i]
		}
	}
	return nil
}

// endpoints are the ready ones of a service, as "address:port" of the named port.
func (c *Caller) endpoints(ctx context.Context, s Service, port string) ([]string, error) {
	list, err := c.objects.List(ctx, target.Of(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), s.Namespace),
		metav1.ListOptions{ResourceVersion: "0", LabelSelector: discoveryv1.LabelServiceName + "=" + s.Name})
	if err != nil {
		return nil, err
	}
	var out []string
	err = meta.EachListItem(list, func(obj runtime.Object) error {
		slice, ok := obj.(*discoveryv1.EndpointSlice)
		if !ok {
			return fmt.Errorf("list of endpointslices holds a %T", obj)
		}
		out = append(out, readyIn(slice, port)...)
		return nil
	})
	return out, err
}

func readyIn(slice *discoveryv1.EndpointSlice, port string) (addresses []string) {
	number := int32(0)
	for _, p := range slice.Ports {
		if p.Port != nil && (p.Name == nil && port == "" || p.Name != nil && *p.Name == port) {
			number = *p.Port
		}
	}
	if number == 0 {
		return nil
	}
	for _, e := range slice.Endpoints {
		if e.Conditions.Ready != nil && !*e.Conditions.Ready {
			continue
		}
		for _, a := range e.Addresses {
			addresses = append(addresses, net.JoinHostPort(a, strconv.Itoa(int(number))))
		}
	}
	return addresses
}
