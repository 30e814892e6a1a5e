package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/node/volume/downward"
)

// source is a Source out of two maps.
type source struct {
	maps    map[string]map[string]string
	secrets map[string]map[string][]byte
}

func (s *source) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	data, ok := s.maps[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmap"}, name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (s *source) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	data, ok := s.secrets[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secret"}, name)
	}
	return &corev1.Secret{Data: data}, nil
}

type bench struct {
	*Volumes
	src    *source
	minted int
	mint   error
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("volumes on tmpfs need root")
	}
	b := &bench{src: &source{maps: map[string]map[string]string{}, secrets: map[string]map[string][]byte{}}}
	b.Volumes = New(Config{Root: t.TempDir(), Source: b.src, Tokens: func(_ context.Context, _ *corev1.Pod, r TokenRequest) (string, time.Time, error) {
		b.minted++
		return fmt.Sprintf("%s-%d", r.Audience, b.minted), time.Now().Add(time.Duration(r.Seconds) * time.Second), b.mint
	}})
	t.Cleanup(func() {
		if err := b.Remove("u1"); err != nil {
			t.Error(err)
		}
	})
	return b
}

// podWith is a pod whose container mounts all of these volumes.
func podWith(vols ...corev1.Volume) *corev1.Pod {
	var mounts []corev1.VolumeMount
	for _, v := range vols {
		mounts = append(mounts, corev1.VolumeMount{Name: v.Name, MountPath: "/" + v.Name})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", UID: "u1", Labels: map[string]string{"b": "2", "a": "1"}},
		Spec:       corev1.PodSpec{Volumes: vols, Containers: []corev1.Container{{Name: "c", VolumeMounts: mounts}}},
	}
}

func (b *bench) prepare(t *testing.T, pod *corev1.Pod) Set {
	t.Helper()
	set, err := b.Prepare(t.Context(), pod, downward.Facts{NodeName: "n", PodIPs: []string{"10.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func ref(name string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: name} }

func TestConfigMapSwitchesAllFilesAtOnce(t *testing.T) {
	b := newBench(t)
	b.src.maps["cm"] = map[string]string{"a": "1", "b": "1"}
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cm")}}})
	dir := b.prepare(t, pod).Paths["v"]
	if read(t, dir+"/a") != "1" {
		t.Error("a isn't 1")
	}
	before, err := os.Readlink(dir + "/..data")
	if err != nil {
		t.Fatal(err)
	}
	b.prepare(t, pod)
	if same, _ := os.Readlink(dir + "/..data"); same != before {
		t.Error("unchanged contents were written again")
	}
	b.src.maps["cm"] = map[string]string{"a": "2", "c": "2"}
	// Whoever has the old directory open keeps a consistent view of it.
	old, err := os.OpenRoot(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	b.prepare(t, pod)
	if read(t, dir+"/a") != "2" || read(t, dir+"/c") != "2" {
		t.Error("new contents aren't there")
	}
	if _, err := os.Lstat(dir + "/b"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("b is still there (%v)", err)
	}
	if link, _ := os.Readlink(dir + "/a"); link != "..data/a" {
		t.Errorf("a points at %q", link)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 4 { // ..data, one version, a, c
		t.Errorf("%d entries remain: %v", len(entries), entries)
	}
}

func TestOptionalItemsAndModes(t *testing.T) {
	b := newBench(t)
	yes, mode := true, int32(0o400)
	b.src.secrets["s"] = map[string][]byte{"k": []byte("x")}
	vol := corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{
		SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "deep/er/k", Mode: &mode}},
	}}}
	none := corev1.Volume{Name: "o", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("no"), Optional: &yes}}}
	set := b.prepare(t, podWith(vol, none))
	info, err := os.Stat(set.Paths["v"] + "/deep/er/k")
	if err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v (%v)", info, err)
	}
	if mounted, err := isMount(set.Paths["v"]); err != nil || !mounted {
		t.Errorf("a secret is on disk (%v)", err)
	}
	for name, c := range map[string]struct {
		vol  corev1.Volume
		want string
	}{
		"missing map": {corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("no")}}},
			`MountVolume.SetUp failed for volume "m" : configmap "no" not found`},
		"missing key": {corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "z", Path: "z"}}}}},
			`references non-existent secret key: z`},
		"climbing path": {corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", Items: []corev1.KeyToPath{{Key: "k", Path: "../../k"}}}}},
			`must not contain '..'`},
		"claim": {corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
			`MountVolume.SetUp failed for volume "m" : claims are not supported by this node`},
	} {
		_, err := b.Prepare(t.Context(), podWith(c.vol), downward.Facts{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// A volume that no container uses is not looked at, so nothing that it lacks is in
// the pod's way; a container that comes later and uses it has it made.
func TestUnusedVolume(t *testing.T) {
	b := newBench(t)
	missing := corev1.Volume{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "no"}}}
	work := corev1.Volume{Name: "w", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
	mount, device := []corev1.VolumeMount{{Name: "w", MountPath: "/w"}}, []corev1.VolumeDevice{{Name: "w", DevicePath: "/w"}}
	for name, use := range map[string]func(*corev1.PodSpec){
		"init":   func(s *corev1.PodSpec) { s.InitContainers = []corev1.Container{{VolumeMounts: mount}} },
		"app":    func(s *corev1.PodSpec) { s.Containers[0].VolumeMounts = mount },
		"device": func(s *corev1.PodSpec) { s.Containers[0].VolumeDevices = device },
		"ephemeral": func(s *corev1.PodSpec) {
			s.EphemeralContainers = make([]corev1.EphemeralContainer, 1)
			s.EphemeralContainers[0].VolumeMounts = mount
		},
	} {
		pod := podWith(missing, work)
		pod.Spec.Containers[0].VolumeMounts = nil
		set := b.prepare(t, pod)
		if _, err := os.Stat(b.volumeDir(pod, "empty-dir", "w")); len(set.Paths) != 0 || !errors.Is(err, fs.ErrNotExist) || b.Path(pod, &work) != "" || !set.Covers(pod) {
			t.Errorf("%s: unused, and yet %v, %v", name, set.Paths, err)
		}
		use(&pod.Spec)
		if set.Covers(pod) {
			t.Errorf("%s: a set without it is enough", name)
		}
		if set = b.prepare(t, pod); set.Paths["w"] == "" || len(set.Paths) != 1 || !set.Covers(pod) || b.Path(pod, &work) != set.Paths["w"] {
			t.Errorf("%s: %v", name, set.Paths)
		}
		if err := b.Remove("u1"); err != nil {
			t.Fatal(err)
		}
	}
}

// Roots, directories and files of the volumes have upstream's modes, and are of the
// pod's fsGroup if it has one.
func TestModesAndGroup(t *testing.T) {
	mode := int32(0o400)
	secret := corev1.SecretVolumeSource{SecretName: "s", DefaultMode: &mode, Items: []corev1.KeyToPath{{Key: "k", Path: "deep/k"}}}
	projected := corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("cm")}}}}
	vols := []corev1.Volume{
		{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &secret}},
		{Name: "p", VolumeSource: corev1.VolumeSource{Projected: &projected}},
		{Name: "c", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: ref("cm")}}},
		{Name: "d", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{}}},
		{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}},
	}
	shown := []string{"s", "s/..data/", "s/..data/deep", "s/deep/k", "p", "p/..data/", "p/k", "c", "c/..data/", "c/k", "d", "e", "m"}
	gid := int64(4321)
	for name, c := range map[string]struct {
		group *int64
		want  string
	}{
		"no group": {nil, "dtrwxrwxrwx drwxr-xr-x drwxr-xr-x -r-------- dtrwxrwxrwx drwxr-xr-x -rw-r--r-- " +
			"drwxrwxrwx drwxr-xr-x -rw-r--r-- dtrwxrwxrwx drwxrwxrwx dtrwxrwxrwx"},
		"group": {&gid, "dgtrwxrwxrwx dgrwxr-xr-x dgrwxr-xr-x -r--r----- dgtrwxrwxrwx dgrwxr-xr-x -rw-r--r-- " +
			"dgrwxrwxrwx dgrwxr-xr-x -rw-r--r-- dgtrwxrwxrwx dgrwxrwxrwx dgtrwxrwxrwx"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.src.secrets["s"], b.src.maps["cm"] = map[string][]byte{"k": []byte("x")}, map[string]string{"k": "x"}
			pod := podWith(vols...)
			pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: c.group}
			set := b.prepare(t, pod)
			var got []string
			for _, path := range shown {
				info, err := os.Stat(set.Paths[path[:1]] + path[1:])
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, info.Mode().String())
				if group := groupOf(info); c.group != nil && group != uint32(*c.group) || c.group == nil && group != uint32(os.Getgid()) {
					t.Errorf("%s is of group %d", path, group)
				}
			}
			if all := strings.Join(got, " "); all != c.want {
				t.Errorf("%v\n got %s\nwant %s", shown, all, c.want)
			}
			// What the pod has made of its own directories stays so.
			for _, own := range []string{set.Paths["e"], set.Paths["m"]} {
				if err := os.Chmod(own, 0o700); err != nil {
					t.Fatal(err)
				}
				b.prepare(t, pod)
				if info, err := os.Stat(own); err != nil || info.Mode() != fs.ModeDir|0o700 {
					t.Errorf("%s: %v, %v", own, info, err)
				}
			}
		})
	}
}

// A tmpfs is never swapped out where the kernel can do that; where it can't, that is
// found out once and the volume works all the same.
func TestMemoryIsNotSwapped(t *testing.T) {
	b := newBench(t)
	vol := corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}}}
	options := func() string {
		dir := b.prepare(t, podWith(vol)).Paths["m"]
		for line := range strings.Lines(read(t, "/proc/self/mountinfo")) {
			if strings.Contains(line, " "+dir+" ") {
				return line
			}
		}
		t.Fatalf("%s is not mounted", dir)
		return ""
	}
	if can := strings.Contains(options(), "noswap"); can == b.swaps.Load() {
		t.Errorf("mounted with noswap: %v, known to be impossible: %v", can, b.swaps.Load())
	}
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	b.swaps.Store(true)
	if strings.Contains(options(), "noswap") {
		t.Error("asked for, though the kernel can't")
	}
}

func TestMemoryDirHasItsSizeAndRemoveLeavesNothing(t *testing.T) {
	b := newBench(t)
	size := resource.MustParse("1Mi")
	pod := podWith(corev1.Volume{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &size}}})
	dir := b.prepare(t, pod).Paths["m"]
	b.prepare(t, pod)
	if err := os.WriteFile(dir+"/big", make([]byte, 2<<20), 0o600); err == nil {
		t.Error("two MiB fit into one")
	}
	if err := b.Remove("u1"); err != nil {
		t.Fatal(err)
	}
	if left, err := mountsUnder(b.Dir("u1")); err != nil || len(left) > 0 {
		t.Errorf("mounts remain: %v (%v)", left, err)
	}
	if _, err := os.Stat(b.Dir("u1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the pod's directory remains (%v)", err)
	}
}

func TestDownwardAndProjected(t *testing.T) {
	b := newBench(t)
	b.src.maps["cm"] = map[string]string{"k": "v"}
	pod := podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: ref("cm")}},
		{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "ip", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}},
		}}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "aud"}},
	}}}})
	set := b.prepare(t, pod)
	for file, want := range map[string]string{"k": "v", "labels": "a=\"1\"\nb=\"2\"", "ip": "10.0.0.1", "token": "aud-1"} {
		if got := read(t, filepath.Join(set.Paths["v"], file)); got != want {
			t.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if left := time.Until(set.Refresh); left < 47*time.Minute || left > 49*time.Minute {
		t.Errorf("the token is renewed in %v, want 48m", left)
	}
}

func TestTokensRotateAtFourFifthsOfTheirLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		minted := 0
		var fail error
		c := newTokenCache(func(_ context.Context, _ *corev1.Pod, r TokenRequest) (string, time.Time, error) {
			minted++
			return fmt.Sprint(minted), time.Now().Add(time.Duration(r.Seconds) * time.Second), fail
		})
		get := func() string {
			token, _, err := c.get(t.Context(), podWith(), TokenRequest{Seconds: 1000})
			if err != nil {
				return "error"
			}
			return token
		}
		steps := []struct {
			after time.Duration
			want  string
		}{{0, "1"}, {799 * time.Second, "1"}, {2 * time.Second, "2"}}
		for _, s := range steps {
			time.Sleep(s.after)
			if got := get(); got != s.want {
				t.Errorf("token %s, want %s", got, s.want)
			}
		}
		fail = errors.New("no server")
		time.Sleep(900 * time.Second)
		if got := get(); got != "2" {
			t.Errorf("while minting fails the token is %s, want the old one", got)
		}
		time.Sleep(200 * time.Second)
		if got := get(); got != "error" {
			t.Errorf("an expired token was handed out: %s", got)
		}
	})
}

func TestSubPathStaysInsideItsVolume(t *testing.T) {
	b := newBench(t)
	pod := podWith(corev1.Volume{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}})
	root := b.prepare(t, pod).Paths["e"]
	s := SubPath{PodUID: "u1", Volume: "e", Container: "c", Root: root, Path: "made/here", Writable: true}
	target, err := b.BindSubPath(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(target+"/f", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if read(t, root+"/made/here/f") != "x" {
		t.Error("the subPath isn't the volume's part")
	}
	// A container may put a link to the host's root there.
	if err := os.Symlink("/", root+"/evil"); err != nil {
		t.Fatal(err)
	}
	s.Path = "evil/etc"
	s.Index = 1
	target, err = b.BindSubPath(s)
	if err == nil {
		if _, err := os.Stat(target + "/passwd"); err == nil {
			t.Error("a subPath shows the host's /etc")
		}
	}
	s.Path = "../x"
	if _, err := b.BindSubPath(s); err == nil {
		t.Error("a subPath with .. is taken")
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "p")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path string
		kind corev1.HostPathType
		want string
	}{
		{dir, corev1.HostPathUnset, ""}, {dir + "/no", corev1.HostPathUnset, ""}, {dir, corev1.HostPathDirectory, ""},
		{file, corev1.HostPathDirectory, "hostPath type check failed: " + file + " is not a directory, it's a File"},
		{file, corev1.HostPathDirectoryOrCreate, "hostPath type check failed: " + file + " is not a directory, it's a File"},
		{file, corev1.HostPathFile, ""},
		{dir, corev1.HostPathFileOrCreate, "hostPath type check failed: " + dir + " is not a file, it's a Directory"},
		{dir + "/none", corev1.HostPathFile, "hostPath type check failed, " + dir + "/none is not a file, unable to determine its type: path \"" + dir + "/none\" does not exist"},
		{dir + "/new", corev1.HostPathDirectoryOrCreate, ""}, {dir + "/newf", corev1.HostPathFileOrCreate, ""},
		{"/dev/null", corev1.HostPathCharDev, ""},
		{"/dev/null", corev1.HostPathBlockDev, "hostPath type check failed: /dev/null is not a block device, it's a CharDevice"},
		{file, corev1.HostPathSocket, "hostPath type check failed: " + file + " is not a socket file, it's a File"},
		{pipe, corev1.HostPathFile, "hostPath type check failed, " + pipe + " is not a file, unable to determine its type: only recognise file, directory, socket, block device and character device"},
		{dir, "Pipe", "Pipe is an invalid volume type"},
	} {
		got := ""
		if err := hostPath(&corev1.HostPathVolumeSource{Path: c.path, Type: &c.kind}); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s as %q: %s, want %s", c.path, c.kind, got, c.want)
		}
	}
}

// A directory that a subPath names and nobody has made is as open as its volume.
func TestMissingSubPathHasTheVolumesMode(t *testing.T) {
	b := newBench(t)
	root := t.TempDir()
	if err := os.Chmod(root, 0o777|os.ModeSetgid); err != nil {
		t.Fatal(err)
	}
	at, err := b.BindSubPath(SubPath{PodUID: "u1", Volume: "v", Container: "c", Root: root, Path: "a/b", Writable: true})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(at)
	if err != nil || info.Mode() != fs.ModeDir|fs.ModeSetgid|0o777 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A host path without a type is made if it is not there.
func TestHostPathWithoutAType(t *testing.T) {
	b := newBench(t)
	at := filepath.Join(t.TempDir(), "a", "b")
	b.prepare(t, podWith(corev1.Volume{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: at}}}))
	if info, err := os.Stat(at); err != nil || info.Mode() != fs.ModeDir|0o755 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

// A volume that upstream has, and has switched off, fails with upstream's words and with
// what to do instead.
func TestGitRepo(t *testing.T) {
	b := newBench(t)
	err := b.failure(t, podWith(corev1.Volume{Name: "v", VolumeSource: corev1.VolumeSource{
		GitRepo: &corev1.GitRepoVolumeSource{Repository: "https://git.example/x"},
	}}))
	if want := `MountVolume.SetUp failed for volume "v" : git-repo volume plugin has been disabled`; !strings.HasPrefix(err.Error(), want) ||
		!strings.Contains(err.Error(), "emptyDir") || Reason(err) != "FailedMount" {
		t.Errorf("%s: %v", Reason(err), err)
	}
}
