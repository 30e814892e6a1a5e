package resource

import (
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// connectOptions is what admission is shown of a connection: the options in its
// query, as upstream's kinds have them. It is nil for what is read and not
// connected to (log), which admission does not see.
func connectOptions(name string, q url.Values, path string) (runtime.Object, schema.GroupVersionKind) {
	flag := func(name string) (on bool) {
		values := q[name]
		_ = runtime.Convert_Slice_string_To_bool(&values, &on, nil) // never fails
		return on
	}
	if path == "" {
		path = q.Get("path")
	}
	var options runtime.Object
	var kind string
	switch name {
	case "pods/attach":
		kind, options = "PodAttachOptions", &corev1.PodAttachOptions{Stdin: flag("stdin"), Stdout: flag("stdout"),
			Stderr: flag("stderr"), TTY: flag("tty"), Container: q.Get("container")}
	case "pods/exec":
		kind, options = "PodExecOptions", &corev1.PodExecOptions{Stdin: flag("stdin"), Stdout: flag("stdout"),
			Stderr: flag("stderr"), TTY: flag("tty"), Container: q.Get("container"), Command: q["command"]}
	case "pods/portforward":
		kind, options = "PodPortForwardOptions", &corev1.PodPortForwardOptions{Ports: ports(q["ports"])}
	case "pods/proxy":
		kind, options = "PodProxyOptions", &corev1.PodProxyOptions{Path: path}
	case "services/proxy":
		kind, options = "ServiceProxyOptions", &corev1.ServiceProxyOptions{Path: path}
	case "nodes/proxy":
		kind, options = "NodeProxyOptions", &corev1.NodeProxyOptions{Path: path}
	default:
		return nil, schema.GroupVersionKind{}
	}
	gvk := corev1.SchemeGroupVersion.WithKind(kind)
	options.GetObjectKind().SetGroupVersionKind(gvk)
	return options, gvk
}

func ports(texts []string) (out []int32) {
	for _, text := range texts {
		if n, err := strconv.ParseInt(text, 10, 32); err == nil {
			out = append(out, int32(n))
		}
	}
	return out
}
