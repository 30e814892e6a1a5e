package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/explain"
)

// server is an API server that can be asked, in objects and in records.
type server struct {
	client.Transport
	records explain.Server
	// rest is how the server is reached, for streams.
	rest *rest.Config
	// namespace is the context's default.
	namespace string
}

// connect reads the kubeconfig and makes a client of it.
func (s *Settings) connect() (*server, error) {
	if _, err := os.Stat(s.Kubeconfig); err != nil {
		return nil, fmt.Errorf("no cluster is known here: %w; start one with sampan up", err)
	}
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{Precedence: strings.Split(s.Kubeconfig, ":")}, nil)
	cfg, err := loaded.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %q: %w", s.Kubeconfig, err)
	}
	namespace, _, err := loaded.Namespace()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %q: %w", s.Kubeconfig, err)
	}
	transport, err := client.NewHTTP(cfg)
	if err != nil {
		return nil, err
	}
	plain, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, err
	}
	return &server{
		Transport: transport, namespace: namespace, rest: cfg,
		records: explain.Server{URL: strings.TrimSuffix(cfg.Host, "/"), Client: plain},
	}, nil
}

// unanswered says in one sentence that a cluster is not there, if that is why a
// request failed.
func unanswered(err error) error {
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		return fmt.Errorf("the cluster does not answer: %w; start it with sampan up", err)
	}
	return err
}

// pods are all pods of the cluster.
func (s *server) pods(ctx context.Context) ([]*corev1.Pod, error) {
	pods, _, err := client.Pods.List(ctx, s, "", metav1.ListOptions{})
	if err != nil {
		return nil, unanswered(err)
	}
	return pods, nil
}

// object is what a person names on the command line: "pod/web", "pod web".
type object struct {
	kind, namespace, name string
}

// parseObject reads TYPE/NAME or TYPE NAME.
func parseObject(args []string, namespace string) (object, error) {
	kind, name, ok := strings.Cut(args[0], "/")
	if !ok && len(args) == 2 {
		name, ok = args[1], true
	}
	if !ok || kind == "" || name == "" {
		return object{}, fmt.Errorf("%q: name an object as TYPE/NAME, for example pod/web", strings.Join(args, " "))
	}
	kinds := map[string]string{
		"po": "pod", "pods": "pod", "deploy": "deployment", "deployments": "deployment",
		"no": "node", "nodes": "node", "rs": "replicaset", "replicasets": "replicaset",
		"svc": "service", "services": "service",
	}
	kind = strings.ToLower(strings.SplitN(kind, ".", 2)[0])
	if full, ok := kinds[kind]; ok {
		kind = full
	}
	return object{kind: kind, namespace: namespace, name: name}, nil
}
