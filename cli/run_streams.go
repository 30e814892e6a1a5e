package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// choose reads which streams to join, and how they are left.
func (r *running) choose(f *runFlags) (err error) {
	r.shown, r.shownErr = r.out, r.errOut
	if r.leave, err = parseKeys(f.detachKeys); err != nil {
		return err
	}
	if len(f.attach) == 0 {
		return nil
	}
	if f.detach {
		return errors.New("--attach and --detach exclude each other")
	}
	have := map[string]bool{}
	for _, text := range f.attach {
		name := strings.ToLower(text)
		if !slices.Contains([]string{"stdin", "stdout", "stderr"}, name) {
			return fmt.Errorf("--attach %q: want stdin, stdout or stderr", text)
		}
		have[name] = true
	}
	f.interactive = f.interactive || have["stdin"]
	if !have["stdout"] {
		r.shown = io.Discard
	}
	if !have["stderr"] {
		r.shownErr = io.Discard
	}
	return nil
}

// borrow gives the container what --volumes-from names: the directories of this machine
// and the named volumes of another. What goes with a container can't be shared.
func (r *running) borrow(ctx context.Context) error {
	for _, text := range r.flags.volumesFrom {
		name, options, _ := strings.Cut(text, ":")
		if options != "" && options != "ro" && options != "rw" {
			return fmt.Errorf("--volumes-from %q: want NAME, or NAME:ro", text)
		}
		other, err := r.named(ctx, r.flags.namespace, name)
		if err != nil {
			return fmt.Errorf("--volumes-from %q: %w", text, err)
		}
		if err := lend(r.pod, other, options == "ro"); err != nil {
			return fmt.Errorf("--volumes-from %q: %w", text, err)
		}
	}
	return nil
}

// lend adds the volumes of one pod to another, unless that has something at their place.
func lend(to, from *corev1.Pod, readOnly bool) error {
	b := podBuilder{pod: to, c: &to.Spec.Containers[0]}
	for _, m := range from.Spec.Containers[0].VolumeMounts {
		if slices.ContainsFunc(b.c.VolumeMounts, func(have corev1.VolumeMount) bool { return have.MountPath == m.MountPath }) {
			continue
		}
		i := slices.IndexFunc(from.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name })
		if i < 0 {
			continue // the API takes no such pod
		}
		source := from.Spec.Volumes[i].VolumeSource
		if source.HostPath == nil {
			return fmt.Errorf("%s goes with %s, and can't be another's too: give it a name there, with -v NAME:%s", m.MountPath, from.Name, m.MountPath)
		}
		m.ReadOnly = m.ReadOnly || readOnly
		b.mount(m, source)
	}
	return nil
}
