package cli

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
)

// maxPublished bounds the ports that one --publish names.
const maxPublished = 1024

// volumeDir is where volumes live that have a name instead of a path.
func (s Settings) volumeDir() string { return filepath.Join(s.DataDir, "volumes") }

// ports reads --publish.
func (b *podBuilder) ports() error {
	for _, text := range b.flags.ports {
		all, err := publish(text)
		if err != nil {
			return fmt.Errorf("--publish %q: %w", text, err)
		}
		b.c.Ports = append(b.c.Ports, all...)
	}
	if b.flags.network == "host" && len(b.c.Ports) > 0 {
		return errors.New("--publish and --network=host exclude each other: the container has the ports of this machine")
	}
	if b.flags.network == noNetwork && len(b.c.Ports) > 0 {
		return errors.New("--publish and --network=none exclude each other: nobody can reach the container")
	}
	return nil
}

// publish reads [IP:]HOST:CONTAINER[/PROTOCOL], where both may be ranges of the
// same length. Without HOST it is one that is free, which anyPorts finds.
func publish(text string) ([]corev1.ContainerPort, error) {
	text, protocol, _ := strings.Cut(text, "/")
	protocol = strings.ToUpper(protocol)
	switch protocol {
	case "":
		protocol = "TCP"
	case "TCP", "UDP", "SCTP":
	default:
		return nil, fmt.Errorf("protocol %q: want tcp, udp or sctp", protocol)
	}
	rest, inside := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		rest, inside = text[:i], text[i+1:]
	}
	ip, outside := "", rest
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		ip, outside = strings.Trim(rest[:i], "[]"), rest[i+1:]
	}
	if ip != "" {
		if _, err := netip.ParseAddr(ip); err != nil {
			return nil, fmt.Errorf("%q is no address", ip)
		}
	}
	first, n, err := portRange(inside)
	if err != nil {
		return nil, err
	}
	host, hosts := int32(0), n
	if outside != "" {
		if host, hosts, err = portRange(outside); err != nil {
			return nil, err
		}
	}
	if hosts != n {
		return nil, fmt.Errorf("%d ports here, %d in the container", hosts, n)
	}
	var all []corev1.ContainerPort
	for i := range n {
		at := int32(0)
		if host != 0 {
			at = host + i
		}
		all = append(all, corev1.ContainerPort{ContainerPort: first + i, HostPort: at, HostIP: ip, Protocol: corev1.Protocol(protocol)})
	}
	return all, nil
}

// portRange reads 80 or 80-89.
func portRange(text string) (first, n int32, err error) {
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		to = from
	}
	a, err1 := strconv.ParseUint(from, 10, 16)
	z, err2 := strconv.ParseUint(to, 10, 16)
	if err1 != nil || err2 != nil || a == 0 || z < a || z-a >= maxPublished {
		return 0, 0, fmt.Errorf("%q is no port, nor a range of at most %d", text, maxPublished)
	}
	return int32(a), int32(z - a + 1), nil //nolint:gosec // 16 bits
}

// mounts reads --volume and --tmpfs.
func (b *podBuilder) mounts() error {
	for _, text := range b.flags.volumes {
		if err := b.volume(text); err != nil {
			return fmt.Errorf("--volume %q: %w", text, err)
		}
	}
	for _, text := range b.flags.mounts {
		if err := b.mountWords(text); err != nil {
			return fmt.Errorf("--mount %q: %w", text, err)
		}
	}
	if b.flags.shmSize != "" {
		if err := b.memory("/dev/shm:size=" + b.flags.shmSize); err != nil {
			return fmt.Errorf("--shm-size %q: %w", b.flags.shmSize, err)
		}
	}
	for _, text := range b.flags.tmpfs {
		if err := b.memory(text); err != nil {
			return fmt.Errorf("--tmpfs %q: %w", text, err)
		}
	}
	return nil
}

// volume reads HOST:CONTAINER[:OPTIONS], NAME:CONTAINER, or CONTAINER alone for a
// directory that goes with the container.
func (b *podBuilder) volume(text string) error {
	fields := strings.Split(text, ":")
	options, label := "", ""
	if len(fields) == 3 {
		options, fields = fields[2], fields[:2]
	}
	at := fields[len(fields)-1]
	if len(fields) > 2 || !filepath.IsAbs(at) {
		return errors.New("want HOST:CONTAINER[:ro], where CONTAINER is an absolute path")
	}
	m := corev1.VolumeMount{MountPath: filepath.Clean(at)}
	for _, o := range strings.Split(options, ",") {
		switch o {
		case "", "rw", "private", "rprivate", "delegated", "cached", "consistent": // what is so anyway
		case "nocopy":
			b.pod.Annotations[noCopyAnnotation] += m.MountPath + ","
		case "z", "Z":
			label = o
		case "ro":
			m.ReadOnly = true
		case "slave", "rslave":
			m.MountPropagation = new(corev1.MountPropagationHostToContainer)
		case "shared", "rshared":
			m.MountPropagation = new(corev1.MountPropagationBidirectional)
		default:
			return fmt.Errorf("option %q is unknown", o)
		}
	}
	source := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}
	if len(fields) == 2 {
		host, err := b.hostPath(fields[0])
		if err != nil {
			return err
		}
		if label != "" || filepath.Dir(host.Path) == b.place.volumes {
			b.share(host.Path, label == "Z")
		}
		source = corev1.VolumeSource{HostPath: host}
	}
	b.mount(m, source)
	return nil
}

// hostPath is a path of this machine, or the directory of a named volume. What is
// not there is made, as a directory.
func (b *podBuilder) hostPath(from string) (*corev1.HostPathVolumeSource, error) {
	path := from
	if !strings.ContainsRune(from, '/') && from != "." && from != ".." && !strings.HasPrefix(from, "~") {
		if len(validation.IsDNS1123Subdomain(strings.ToLower(strings.ReplaceAll(from, "_", "-")))) > 0 {
			return nil, fmt.Errorf("%q is neither a path nor the name of a volume", from)
		}
		path = filepath.Join(b.place.volumes, from)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	kind := corev1.HostPathUnset
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		kind = corev1.HostPathDirectoryOrCreate
	}
	return &corev1.HostPathVolumeSource{Path: path, Type: &kind}, nil
}

// mountWords reads docker's other words for what --volume and --tmpfs say, and an image
// as a directory.
func (b *podBuilder) mountWords(text string) error {
	said, err := b.saidOf(text)
	if err != nil {
		return err
	}
	options := said["bind-propagation"]
	if said["readonly"] == "true" || said["readonly"] == "1" {
		options += ",ro"
	}
	switch said["type"] {
	case "tmpfs":
		return b.memory(said["target"] + ":size=" + cmp.Or(said["tmpfs-size"], "64m"))
	case "image":
		if said["source"] == "" || !filepath.IsAbs(said["target"]) {
			return errors.New("want source=IMAGE,target=PATH")
		}
		from := &corev1.ImageVolumeSource{Reference: said["source"], PullPolicy: b.c.ImagePullPolicy}
		b.mount(corev1.VolumeMount{MountPath: filepath.Clean(said["target"]), SubPath: said["image-subpath"], ReadOnly: true}, corev1.VolumeSource{Image: from})
		return nil
	case "bind":
		if _, err := os.Stat(said["source"]); err != nil || !filepath.IsAbs(said["source"]) {
			return fmt.Errorf("source %q is not a path that there is", said["source"]) // docker makes none here, unlike for --volume
		}
	case "volume":
		if strings.ContainsRune(said["source"], '/') {
			return fmt.Errorf("source %q is not the name of a volume", said["source"])
		}
		if said["volume-nocopy"] == "true" || said["volume-nocopy"] == "1" {
			options += ",nocopy"
		}
	default:
		return fmt.Errorf("type %q: want bind, volume, tmpfs or image", said["type"])
	}
	fields := []string{said["target"]}
	if said["source"] != "" {
		fields = []string{said["source"], said["target"], options}
	}
	if err := b.volume(strings.Join(fields, ":")); err != nil {
		return err
	}
	b.c.VolumeMounts[len(b.c.VolumeMounts)-1].SubPath = said["volume-subpath"]
	return nil
}

// saidOf takes the words of --mount apart.
func (b *podBuilder) saidOf(text string) (map[string]string, error) {
	said := map[string]string{"type": "volume"}
	words, err := commas(text)
	if err != nil {
		return nil, err
	}
	for _, word := range words {
		name, value, ok := strings.Cut(word, "=")
		switch name {
		case "src":
			name = "source"
		case "dst", "destination":
			name = "target"
		case "ro":
			name = "readonly"
		}
		if (name == "readonly" || name == "volume-nocopy") && !ok {
			value = "true"
		}
		switch name {
		case "type", "source", "target", "readonly", "tmpfs-size", "bind-propagation", "volume-nocopy", "volume-subpath", "image-subpath":
			said[name] = value
		case "tmpfs-mode", "bind-recursive", "volume-label", "consistency":
			b.note("--mount %s: %s is left out", text, word)
		default:
			return nil, fmt.Errorf("%q is unknown", name)
		}
	}
	return said, nil
}

// memory reads PATH[:size=BYTES,...].
func (b *podBuilder) memory(text string) error {
	at, options, _ := strings.Cut(text, ":")
	if !filepath.IsAbs(at) {
		return errors.New("want an absolute path")
	}
	dir := &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory}
	for _, o := range strings.Split(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch name {
		case "", "rw", "exec":
		case "noexec", "nosuid", "nodev", "mode", "uid", "gid":
			b.note("--tmpfs %s: %s is left out: a pod's directories in memory have no options but their size", text, o)
		case "size":
			n, err := bytesOf(value)
			if err != nil {
				return err
			}
			dir.SizeLimit = new(resource.Quantity)
			*dir.SizeLimit = n
		default:
			return fmt.Errorf("option %q is unknown", o)
		}
	}
	b.mount(corev1.VolumeMount{MountPath: filepath.Clean(at)}, corev1.VolumeSource{EmptyDir: dir})
	return nil
}

func (b *podBuilder) mount(m corev1.VolumeMount, source corev1.VolumeSource) {
	m.Name = "v" + strconv.Itoa(len(b.pod.Spec.Volumes))
	b.pod.Spec.Volumes = append(b.pod.Spec.Volumes, corev1.Volume{Name: m.Name, VolumeSource: source})
	b.c.VolumeMounts = append(b.c.VolumeMounts, m)
}
