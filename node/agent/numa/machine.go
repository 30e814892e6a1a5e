package numa

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// CPU is one logical CPU and where it is. Core, Socket and Cache are unique on
// the machine; Cache is the last one that CPUs share.
type CPU struct{ ID, Core, Socket, Node, Cache int }

// Node is one NUMA node.
type Node struct {
	ID int
	// Memory is in bytes, Huge in bytes by page size in bytes.
	Memory int64
	Huge   map[int64]int64
	// Distances are to the nodes in order.
	Distances []int
}

// Machine is what a machine's CPUs and memory look like.
type Machine struct {
	CPUs  map[int]CPU
	Nodes []Node
}

// Read reads sysfs, usually mounted at /sys. A machine that doesn't speak of
// NUMA is one node.
func Read(sys string) (Machine, error) {
	m := Machine{CPUs: map[int]CPU{}}
	online, err := set(filepath.Join(sys, "devices/system/cpu/online"))
	if err != nil {
		return m, fmt.Errorf("read the machine's CPUs: %w", err)
	}
	cores := map[[2]int]int{}
	for _, id := range online.List() {
		dir := filepath.Join(sys, "devices/system/cpu/cpu"+strconv.Itoa(id))
		socket, err := number(filepath.Join(dir, "topology/physical_package_id"))
		if err != nil {
			return m, fmt.Errorf("read the machine's CPUs: %w", err)
		}
		core, err := number(filepath.Join(dir, "topology/core_id"))
		if err != nil {
			return m, fmt.Errorf("read the machine's CPUs: %w", err)
		}
		// Numbers of cores are unique in a socket only; of its CPUs the first names
		// a core.
		place := [2]int{int(socket), int(core)}
		if _, seen := cores[place]; !seen {
			cores[place] = id
		}
		m.CPUs[id] = CPU{ID: id, Core: cores[place], Socket: int(socket), Cache: cache(dir, id)}
	}
	return m, m.nodes(filepath.Join(sys, "devices/system/node"))
}

// cache is the first CPU of those that share the last cache, else the CPU.
func cache(dir string, id int) int {
	for level := 3; level > 1; level-- {
		if s, err := set(filepath.Join(dir, "cache/index"+strconv.Itoa(level), "shared_cpu_list")); err == nil && s.Size() > 0 {
			return s.List()[0]
		}
	}
	return id
}

func (m *Machine) nodes(dir string) error {
	online, err := set(filepath.Join(dir, "online"))
	if errors.Is(err, fs.ErrNotExist) {
		m.Nodes = []Node{{Distances: []int{10}}}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the machine's NUMA nodes: %w", err)
	}
	for _, id := range online.List() {
		at := filepath.Join(dir, "node"+strconv.Itoa(id))
		n := Node{ID: id, Huge: map[int64]int64{}}
		cpus, err := set(filepath.Join(at, "cpulist"))
		if err != nil {
			return fmt.Errorf("read the machine's NUMA nodes: %w", err)
		}
		for _, c := range cpus.List() {
			if cpu, ok := m.CPUs[c]; ok {
				cpu.Node = id
				m.CPUs[c] = cpu
			}
		}
		n.Memory = total(filepath.Join(at, "meminfo"))
		pages(filepath.Join(at, "hugepages"), n.Huge)
		if text, err := os.ReadFile(filepath.Join(at, "distance")); err == nil {
			for _, f := range strings.Fields(string(text)) {
				d, _ := strconv.Atoi(f) // what can't be read is 0: no reason not to start
				n.Distances = append(n.Distances, d)
			}
		}
		m.Nodes = append(m.Nodes, n)
	}
	return nil
}

// All are the CPUs.
func (m Machine) All() cpuset.CPUSet {
	var list []int
	for id := range m.CPUs {
		list = append(list, id)
	}
	return cpuset.New(list...)
}

// IDs are the numbers of the nodes.
func (m Machine) IDs() []int {
	var list []int
	for _, n := range m.Nodes {
		list = append(list, n.ID)
	}
	return list
}

// Distance is how far two nodes are from each other, 10 for the same.
func (m Machine) Distance(a, b int) int {
	i := slices.IndexFunc(m.Nodes, func(n Node) bool { return n.ID == a })
	j := slices.IndexFunc(m.Nodes, func(n Node) bool { return n.ID == b })
	if i < 0 || j < 0 || j >= len(m.Nodes[i].Distances) {
		return 10
	}
	return m.Nodes[i].Distances[j]
}

func set(path string) (cpuset.CPUSet, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return cpuset.New(), err
	}
	return cpuset.Parse(strings.TrimSpace(string(text)))
}

func number(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
}

// total reads "Node 0 MemTotal: 123 kB".
func total(path string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) >= 4 && f[2] == "MemTotal:" {
			kib, _ := strconv.ParseInt(f[3], 10, 64)
			return kib << 10
		}
	}
	return 0
}

func pages(dir string, huge map[int64]int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(e.Name(), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		if n, err := number(filepath.Join(dir, e.Name(), "nr_hugepages")); err == nil {
			huge[kib<<10] = n * kib << 10
		}
	}
}
