package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sampan-dev/sampan/node/agent/spec"
)

// Hook runs a postStart or preStop handler in or against a running container
// and waits for its end or ctx's.
func (d *Doer) Hook(ctx context.Context, pod *corev1.Pod, container, id string, h *corev1.LifecycleHandler) error {
	c := spec.Container(pod, container)
	var result Result
	var output string
	switch {
	case h.Exec != nil:
		result, output = d.exec(ctx, id, h.Exec.Command)
	case h.HTTPGet != nil:
		return d.call(ctx, pod, c, h.HTTPGet)
	case h.TCPSocket != nil:
		result, output = d.tcp(ctx, pod, c, h.TCPSocket.Host, h.TCPSocket.Port)
	case h.Sleep != nil:
		err := sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		if err != nil && d.Cut != nil {
			d.Cut()
		}
		return err
	default:
		return fmt.Errorf("hook of container %q names no handler", container)
	}
	if result != Success {
		return fmt.Errorf("hook of container %q failed: %s", container, output)
	}
	return nil
}

// call sends a hook's HTTP request; as upstream has it, any answer will do, and a
// server that doesn't speak TLS is asked without, and without credentials.
func (d *Doer) call(ctx context.Context, pod *corev1.Pod, c *corev1.Container, a *corev1.HTTPGetAction) error {
	req, err := d.request(ctx, pod, c, a)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", hookAgent)
	res, err := client().Do(req)
	if plain(err) {
		again := req.Clone(ctx)
		again.URL.Scheme = "http"
		again.Header.Del("Authorization")
		if res, err = client().Do(again); err == nil && d.FellBack != nil {
			d.FellBack(pod, req.URL.Host)
		}
	}
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// plain: whoever was asked over TLS answered in plain HTTP.
func plain(err error) bool {
	var fault tls.RecordHeaderError
	return err != nil && (errors.As(err, &fault) && string(fault.RecordHeader[:]) == "HTTP/" ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"))
}

// hookAgent names us in the HTTP requests of hooks.
const hookAgent = "kube-lifecycle/1.37"

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
