package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
)

// ownProcess is what exec's command has of its own, as a person says it. The exec of
// Kubernetes has no words for it, so it is asked of the node that the pod is on.
type ownProcess struct {
	user, workdir string
	env, envFiles []string
	// detach: it goes on without us.
	detach bool
}

// check looks at what was said before anybody is asked.
func (o ownProcess) check() error {
	if o.workdir != "" && !path.IsAbs(o.workdir) {
		return fmt.Errorf("--workdir %q: want an absolute path", o.workdir)
	}
	return nil
}

// ownWords are ownProcess in the words of the node's API.
type ownWords struct {
	query url.Values
	// env goes in a header, since requests' addresses are kept in audit logs.
	env []string
}

// read gives nil when nothing was said.
func (o ownProcess) read() (*ownWords, error) {
	vars, err := variables(o.env, o.envFiles)
	if err != nil {
		return nil, err
	}
	if o.user == "" && o.workdir == "" && len(vars) == 0 && !o.detach {
		return nil, nil
	}
	w := &ownWords{query: url.Values{}}
	for name, value := range map[string]string{"user": o.user, "workdir": o.workdir} {
		if value != "" {
			w.query.Set(name, value)
		}
	}
	if o.detach {
		w.query.Set("detach", "true")
	}
	for _, v := range vars {
		w.env = append(w.env, v.Name+"="+v.Value)
	}
	if len(w.env) > 0 {
		w.query.Set("env", "true")
	}
	return w, nil
}

// execOwn runs a command through the API of the pod's node.
func (s *server) execOwn(ctx context.Context, node string, pod podName, q url.Values, own *ownWords, ends stdio) (printed bool, err error) {
	for name, values := range own.query {
		q[name] = values
	}
	ends.ask(q, "input", "output", "error")
	where := "/api/v1/nodes/" + url.PathEscape(node) + "/proxy/exec"
	for _, name := range []string{pod.namespace, pod.name, pod.container} {
		where += "/" + url.PathEscape(name)
	}
	at, err := url.Parse(s.records.URL + where + "?" + q.Encode())
	if err != nil {
		return false, err
	}
	cfg := rest.CopyConfig(s.rest)
	if len(own.env) > 0 {
		raw, err := json.Marshal(own.env)
		if err != nil {
			return false, err
		}
		cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return headed{next: next, name: "Sampan-Exec-Env", value: base64.StdEncoding.EncodeToString(raw)}
		})
	}
	executor, err := remotecommand.NewSPDYExecutor(cfg, http.MethodPost, at)
	if err != nil {
		return false, err
	}
	return ends.join(ctx, executor)
}

// headed gives every request one more header.
type headed struct {
	next        http.RoundTripper
	name, value string
}

// RoundTrip implements http.RoundTripper.
func (h headed) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(h.name, h.value)
	return h.next.RoundTrip(r)
}
