package cli

import (
	"maps"
	"testing"
)

// What is mounted of this machine is labelled for all containers, or for this one, whose
// pod then says its level; or it keeps its label.
func TestSharedFiles(t *testing.T) {
	podWith := func(labelled map[string]string, level string) (string, error) {
		f := runFlags{volumes: []string{"/srv/a:/a:z", "/srv/b:/b:ro,Z", "data:/c", "/srv/d:/d", "/e", "mine:/f:Z"}}
		if level != "" {
			f.securityOpts = []string{"label=level:" + level}
		}
		pod, err := podOf(f, "app", nil, podPlace{volumes: "/volumes", labelled: labelled})
		if err != nil {
			return "", err
		}
		if o := pod.Spec.Containers[0].SecurityContext.SELinuxOptions; o != nil {
			return o.Level, nil
		}
		return "", nil
	}
	for _, level := range []string{"", "s0:c1,c2"} {
		got := map[string]string{}
		said, err := podWith(got, level)
		if err != nil || said == "" || level != "" && said != level {
			t.Fatalf("the pod's level is %q, %v", said, err)
		}
		want := map[string]string{"/srv/a": "s0", "/srv/b": said, "/volumes/data": "s0", "/volumes/mine": said}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if said, err := podWith(nil, ""); said != "" || err != nil {
		t.Errorf("without SELinux the pod has level %q, %v", said, err)
	}
}
