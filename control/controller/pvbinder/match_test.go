package pvbinder

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// readVolume reads "name size modes [class=x] [for=claim[:uid]] [phase=x] [app=x] [block]".
func readVolume(line string) *volume {
	f := strings.Fields(line)
	v := &volume{ObjectMeta: metav1.ObjectMeta{Name: f[0]}, Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	v.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(f[1])}
	v.Spec.AccessModes = modes(f[2])
	for _, word := range f[3:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "class":
			v.Spec.StorageClassName = value
		case "for":
			name, uid, _ := strings.Cut(value, ":")
			v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "ns", Name: name, UID: types.UID(uid)}
		case "phase":
			v.Status.Phase = corev1.PersistentVolumePhase(value)
		case "app":
			v.Labels = map[string]string{"app": value}
		case "block":
			v.Spec.VolumeMode = new(corev1.PersistentVolumeBlock)
		}
	}
	return v
}

func modes(text string) (all []corev1.PersistentVolumeAccessMode) {
	for m := range strings.SplitSeq(text, ",") {
		all = append(all, map[string]corev1.PersistentVolumeAccessMode{"RWO": corev1.ReadWriteOnce, "RWX": corev1.ReadWriteMany, "ROX": corev1.ReadOnlyMany}[m])
	}
	return all
}

func readClaim(line string) *claim {
	v := readVolume(line)
	c := &claim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: v.Name, UID: "1"}}
	c.Spec.Resources.Requests, c.Spec.AccessModes, c.Spec.VolumeMode = v.Spec.Capacity, v.Spec.AccessModes, v.Spec.VolumeMode
	c.Spec.StorageClassName = &v.Spec.StorageClassName
	if v.Labels != nil {
		c.Spec.Selector = &metav1.LabelSelector{MatchLabels: v.Labels}
	}
	return c
}

func TestBest(t *testing.T) {
	for _, c := range []struct {
		name, claim, volumes string
		delayed              bool
		want                 string
	}{
		{"the smallest that fits", "c 5Gi RWO", "a 10Gi RWO; b 6Gi RWO; d 4Gi RWO", false, "b"},
		{"the one that can least", "c 5Gi RWO", "a 6Gi RWO,RWX; b 20Gi RWO", false, "b"},
		{"one that can more, if need be", "c 5Gi RWX", "a 6Gi RWO,RWX; b 20Gi RWO", false, "a"},
		{"of its class", "c 1Gi RWO class=fast", "a 1Gi RWO; b 1Gi RWO class=fast", false, "b"},
		{"of its mode", "c 1Gi RWO block", "a 1Gi RWO; b 1Gi RWO block", false, "b"},
		{"of its selector", "c 1Gi RWO app=x", "a 1Gi RWO; b 2Gi RWO app=x", false, "b"},
		{"reserved for it, whatever class", "c 1Gi RWO class=fast", "a 1Gi RWO class=fast; b 9Gi RWO for=c", false, "b"},
		{"not reserved for another", "c 1Gi RWO", "a 1Gi RWO for=d; b 1Gi RWO for=c:other", false, ""},
		{"not one that was used", "c 1Gi RWO", "a 1Gi RWO phase=Released", false, ""},
		{"nothing while it waits", "c 1Gi RWO", "a 1Gi RWO", true, ""},
		{"but what is reserved", "c 1Gi RWO", "a 1Gi RWO; b 1Gi RWO for=c:1", true, "b"},
	} {
		var all []*volume
		for line := range strings.SplitSeq(c.volumes, ";") {
			all = append(all, readVolume(line))
		}
		got := ""
		v, err := best(readClaim(c.claim), all, c.delayed)
		if v != nil {
			got = v.Name
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestJudge(t *testing.T) {
	taken := readClaim("c 1Gi RWO")
	taken.Spec.VolumeName = "other"
	mine := readClaim("c 1Gi RWO")
	mine.Spec.VolumeName = "v"
	provisioned := readVolume("v 1Gi RWO for=c:1")
	provisioned.Annotations = map[string]string{provisionedBy: "d.example.com"}
	provisioned.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimDelete
	for i, c := range []struct {
		v    *volume
		c    *claim
		want outcome
	}{
		{readVolume("v 1Gi RWO"), nil, available}, {readVolume("v 1Gi RWO for=c"), nil, available},
		{readVolume("v 1Gi RWO for=c:1"), nil, released}, {readVolume("v 1Gi RWO for=c:1"), readClaim("c 1Gi RWO"), dangling},
		{readVolume("v 1Gi RWO for=c:1"), mine, bound}, {readVolume("v 1Gi RWO for=c:1"), taken, misplaced}, {provisioned, taken, superseded},
	} {
		if got := judge(c.v, c.c); got != c.want {
			t.Errorf("case %d: %d, want %d", i, got, c.want)
		}
	}
	if reason, _ := reclaim(provisioned); reason != "" {
		t.Errorf("its driver deletes it, but: %s", reason)
	}
	delete(provisioned.Annotations, provisionedBy)
	if reason, message := reclaim(provisioned); fmt.Sprint(reason, ": ", message) != `VolumeFailedDelete: error getting deleter volume plugin for volume "v": no deletable volume plugin matched` {
		t.Error(reason, message)
	}
}
