package connect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sampan-dev/sampan/internal/translate"
)

// maxComplaint bounds how much of a node's error is passed on.
const maxComplaint = 2000

// pod gives the pod of the call.
func (c *Connector) pod(k call) (*corev1.Pod, error) {
	t := k.req.Target
	obj, err := c.cfg.Objects.Get(k.r.Context(), core("pods", t.Namespace, t.Name), metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return nil, apierrors.NewInternalError(fmt.Errorf("pod %q is a %T", t.Key(), obj))
	}
	return pod, nil
}

// containerOf is the container meant: the named one, or the only one.
func containerOf(pod *corev1.Pod, name string) (string, error) {
	var names, inits []string
	for _, ctr := range pod.Spec.Containers {
		names = append(names, ctr.Name)
	}
	for _, ctr := range pod.Spec.InitContainers {
		inits = append(inits, ctr.Name)
	}
	all := slices.Concat(names, inits)
	for _, ctr := range pod.Spec.EphemeralContainers {
		all = append(all, ctr.Name)
	}
	if name != "" {
		if !slices.Contains(all, name) {
			return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
		}
		return name, nil
	}
	switch {
	case len(names) == 1:
		return names[0], nil
	case len(names) == 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s", pod.Name))
	case len(inits) > 0:
		return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s or one of the init containers: %s", pod.Name, names, inits))
	}
	return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, names))
}

// stream connects to one of the node's streaming endpoints.
func (c *Connector) stream(k call, verb string, options func(pod *corev1.Pod) (container string, query url.Values, err error)) error {
	pod, err := c.pod(k)
	if err != nil {
		return err
	}
	container, query, err := options(pod)
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("pod %s does not have a host assigned", pod.Name))
	}
	n, err := c.find(k.r.Context(), pod.Spec.NodeName)
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/%s/%s/%s", verb, pod.Namespace, pod.Name)
	if container != "" {
		path += "/" + container
	}
	location := n.url(path, query)
	if exec, forward := translate.Exec(k.r), translate.Forward(k.r); (exec || forward) && !n.translates {
		return c.translate(k, n, location, exec)
	}
	c.toNode(k, location, n, true)
	return nil
}

// translate stands between a client's WebSocket and a node that speaks SPDY alone.
func (c *Connector) translate(k call, n node, location *url.URL, exec bool) error {
	at, transport := c.inside(n, location)
	to := translate.Remote{Name: fmt.Sprintf("node %q", n.name), URL: at, Transport: transport}
	var err error
	if exec {
		q := location.Query()
		err = translate.ServeExec(k.w, k.r, to, translate.Wants{Stdin: q.Has("input"), Stdout: q.Has("output"), Stderr: q.Has("error"), TTY: q.Has("tty")})
	} else {
		err = translate.ServeForward(k.w, k.r, to)
	}
	var refused *translate.Refusal
	var status *apierrors.StatusError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refusal(refused.Code, refused.Text, k.req.Target.Name)
	case errors.As(err, &status):
		return status
	}
	return apierrors.NewInternalError(err)
}

func (c *Connector) exec(k call) error {
	return c.stream(k, "exec", func(pod *corev1.Pod) (string, url.Values, error) {
		q := k.r.URL.Query()
		query := streams(q)
		for _, word := range q["command"] {
			query.Add("command", word)
		}
		container, err := containerOf(pod, q.Get("container"))
		return container, query, err
	})
}

func (c *Connector) attach(k call) error {
	return c.stream(k, "attach", func(pod *corev1.Pod) (string, url.Values, error) {
		q := k.r.URL.Query()
		container, err := containerOf(pod, q.Get("container"))
		return container, streams(q), err
	})
}

// streams translates the API's names of the standard streams into the node's.
func streams(q url.Values) url.Values {
	out := url.Values{}
	for from, to := range map[string]string{"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"} {
		if yes(q, from) {
			out.Set(to, "1")
		}
	}
	return out
}

func yes(q url.Values, name string) bool {
	v := strings.ToLower(q.Get(name))
	return q.Has(name) && v != "0" && v != "false"
}

func (c *Connector) portForward(k call) error {
	return c.stream(k, "portForward", func(*corev1.Pod) (string, url.Values, error) {
		query := url.Values{}
		for _, ports := range k.r.URL.Query()["ports"] {
			for port := range strings.SplitSeq(ports, ",") {
				query.Add("port", port)
			}
		}
		return "", query, nil
	})
}

// log copies a container's log, line by line as the node sends it.
func (c *Connector) log(k call) error {
	pod, err := c.pod(k)
	if err != nil {
		return err
	}
	q := k.r.URL.Query()
	if err := wrongLogOptions(pod.Name, q); err != nil {
		return err
	}
	container, err := containerOf(pod, q.Get("container"))
	if err != nil {
		return err
	}
	if pod.Spec.NodeName == "" {
		k.w.WriteHeader(http.StatusNoContent) // not placed yet: nothing has been said
		return nil
	}
	n, err := c.find(k.r.Context(), pod.Spec.NodeName)
	if err != nil {
		return err
	}
	where := n.url(fmt.Sprintf("/containerLogs/%s/%s/%s", pod.Namespace, pod.Name, container), logOptions(q))
	r, err := http.NewRequestWithContext(k.r.Context(), http.MethodGet, where.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	answer, err := c.transport(n).RoundTrip(r)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("get logs of pod %q from node %q: %w", pod.Name, n.name, err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return complaint(answer, pod.Name)
	}
	if wsstream.IsWebSocketRequest(k.r) {
		// Each piece is a message. The library drops what comes together with the
		// end, which a buffer tells apart. An error is one side hanging up.
		lines := wsstream.NewReaderWithLogger(klog.Logger{}, bufio.NewReader(answer.Body), true, wsstream.NewDefaultReaderProtocols())
		_ = lines.Copy(k.w, k.r.WithContext(klog.NewContext(k.r.Context(), klog.Logger{})))
		return nil
	}
	k.w.Header().Set("Content-Type", "text/plain")
	k.w.WriteHeader(http.StatusOK)
	copyFlushing(k.w, answer.Body)
	return nil
}

// complaint passes the node's refusal on.
func complaint(answer *http.Response, pod string) error {
	raw, _ := io.ReadAll(io.LimitReader(answer.Body, maxComplaint)) // what there is, is what is told
	return refusal(answer.StatusCode, strings.TrimSpace(string(raw)), pod)
}

func refusal(code int, text, pod string) error {
	switch code {
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(errors.New(text))
	}
	return apierrors.NewGenericServerResponse(code, "", schema.GroupResource{Resource: "pods/log"}, pod, text, 0, false)
}

// copyFlushing sends each piece on as soon as it is there.
func copyFlushing(w http.ResponseWriter, from io.Reader) {
	flush := http.NewResponseController(w)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return
			}
			if flush.Flush() != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// logParameters are those that the node understands too.
var logParameters = []string{"follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"}

func logOptions(q url.Values) url.Values {
	out := url.Values{}
	for _, name := range logParameters {
		if q.Has(name) {
			out.Set(name, q.Get(name))
		}
	}
	return out
}

// wrongLogOptions says what is wrong with the options of a log: of which one is not
// even a number, in the words of whoever read it; else all that is out of bounds.
func wrongLogOptions(pod string, q url.Values) error {
	var errs field.ErrorList
	for _, o := range []struct {
		name  string
		least int64
		text  string
	}{{"tailLines", 0, "must be greater than or equal to 0"}, {"limitBytes", 1, "must be greater than 0"}, {"sinceSeconds", 1, "must be greater than 0"}} {
		if !q.Has(o.name) || o.name == "sinceSeconds" && q.Has("sinceTime") {
			continue
		}
		n, err := strconv.ParseInt(q.Get(o.name), 10, 64)
		if err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
		if n < o.least {
			errs = append(errs, field.Invalid(field.NewPath(o.name), n, o.text))
		}
	}
	if q.Has("sinceSeconds") && q.Has("sinceTime") {
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	}
	if at := q.Get("sinceTime"); at != "" {
		if _, err := time.Parse(time.RFC3339, at); err != nil {
			return apierrors.NewBadRequest(err.Error())
		}
	}
	if s := q.Get("stream"); s != "" && s != corev1.LogStreamAll && s != corev1.LogStreamStdout && s != corev1.LogStreamStderr {
		errs = append(errs, field.NotSupported(field.NewPath("stream"), s, []string{corev1.LogStreamAll, corev1.LogStreamStdout, corev1.LogStreamStderr}))
	}
	if len(errs) == 0 {
		return nil
	}
	return apierrors.NewInvalid(schema.GroupKind{Kind: "PodLogOptions"}, pod, errs)
}
