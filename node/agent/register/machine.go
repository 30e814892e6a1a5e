package register

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// machine is what doesn't change while the agent runs.
type machine struct {
	capacity, allocatable corev1.ResourceList
	info                  corev1.NodeSystemInfo
}

// inspect reads the machine.
func inspect(cfg Config) (machine, error) {
	m := machine{capacity: cfg.Capacity, info: systemInfo(cfg.Version)}
	if m.capacity == nil {
		memory, err := meminfo("MemTotal")
		if err != nil {
			return m, err
		}
		m.capacity = corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
		}
		if size, err := disk(cfg.Disk); err == nil {
			m.capacity[corev1.ResourceEphemeralStorage] = *resource.NewQuantity(size, resource.BinarySI)
		}
		hugepages(m.capacity)
	}
	m.capacity = m.capacity.DeepCopy()
	m.capacity[corev1.ResourcePods] = *resource.NewQuantity(cfg.MaxPods, resource.DecimalSI)
	m.allocatable = m.capacity.DeepCopy()
	withheld := []corev1.ResourceList{cfg.Reserved}
	if cfg.Withhold != nil {
		withheld = append(withheld, cfg.Withhold(m.capacity))
	}
	for _, list := range withheld {
		m.withhold(list)
	}
	return m, nil
}

// withhold takes from what pods may have.
func (m *machine) withhold(list corev1.ResourceList) {
	for name, q := range list {
		left, counted := m.allocatable[name]
		if !counted {
			continue
		}
		left.Sub(q)
		if left.Sign() < 0 {
			left = resource.Quantity{Format: left.Format}
		}
		m.allocatable[name] = left
	}
}

func systemInfo(version string) corev1.NodeSystemInfo {
	return corev1.NodeSystemInfo{
		MachineID:       firstLine("/etc/machine-id", "/var/lib/dbus/machine-id"),
		SystemUUID:      firstLine("/sys/class/dmi/id/product_uuid", "/etc/machine-id"),
		BootID:          firstLine("/proc/sys/kernel/random/boot_id"),
		KernelVersion:   firstLine("/proc/sys/kernel/osrelease"),
		OSImage:         osImage(),
		KubeletVersion:  version,
		OperatingSystem: runtime.GOOS,
		Architecture:    runtime.GOARCH,
	}
}

// firstLine is the first of the files that can be read, trimmed.
func firstLine(paths ...string) string {
	for _, p := range paths {
		if data, err := os.ReadFile(p); err == nil {
			if text := strings.TrimSpace(string(data)); text != "" {
				return text
			}
		}
	}
	return ""
}

func osImage() string {
	data, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(name, `"`)
		}
	}
	return runtime.GOOS
}

// meminfo reads one field of /proc/meminfo, in bytes.
func meminfo(field string) (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read memory size: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 2 && fields[0] == field+":" {
			kib, err := strconv.ParseInt(fields[1], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("read memory size: no %s in /proc/meminfo", field)
}

// disk is the size of the file system that holds path, or its nearest parent
// that exists, in bytes.
func disk(path string) (size int64, err error) {
	var s unix.Statfs_t
	for {
		err = unix.Statfs(path, &s)
		if err == nil {
			return int64(s.Blocks) * s.Bsize, nil
		}
		i := strings.LastIndexByte(path, '/')
		if i <= 0 {
			return 0, fmt.Errorf("size of the pods' file system: %w", err)
		}
		path = path[:i]
	}
}

func hugepages(capacity corev1.ResourceList) {
	const root = "/sys/kernel/mm/hugepages"
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	for _, e := range entries {
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		count, err := strconv.ParseInt(firstLine(root+"/"+e.Name()+"/nr_hugepages"), 10, 64)
		if err != nil {
			continue
		}
		size := resource.NewQuantity(kib<<10, resource.BinarySI)
		name := corev1.ResourceName(corev1.ResourceHugePagesPrefix + size.String())
		capacity[name] = *resource.NewQuantity(count*kib<<10, resource.BinarySI)
	}
}
