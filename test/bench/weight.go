package main

import (
	"context"
	"debug/elf"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// contributors is how many of the largest are shown.
const contributors = 8

// weight lists what the binary is made of: the programs that it carries, and the
// modules with the most code and data, by the symbols of an unstripped build.
func weight(ctx context.Context) ([]row, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return nil, err
	}
	rows := []row{{"binary, stripped", mega(info.Size()), ""}}
	for _, asset := range []string{"kubectl.zst", "keeper"} {
		if info, err := os.Stat(filepath.Join("cmd/sampan/assets", asset)); err == nil {
			rows = append(rows, row{"  carries " + asset, mega(info.Size()), ""})
		}
	}
	dir, err := os.MkdirTemp("", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	full := filepath.Join(dir, "sampan")
	build := exec.CommandContext(ctx, "go", "build", "-o", full, "./cmd/sampan")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build with symbols: %w: %s", err, out)
	}
	sizes, err := symbols(full)
	if err != nil {
		return nil, err
	}
	names := slices.SortedFunc(maps.Keys(sizes), func(a, b string) int { return int(sizes[b] - sizes[a]) })
	for _, name := range names[:min(contributors, len(names))] {
		rows = append(rows, row{"  " + name, mega(sizes[name]), ""})
	}
	return rows, nil
}

// symbols adds up the sizes of a program's symbols by module.
func symbols(path string) (map[string]int64, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Symbols()
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, s := range all {
		sizes[moduleOf(s.Name)] += int64(s.Size)
	}
	return sizes, nil
}

// moduleOf guesses a symbol's module from its package's path.
func moduleOf(symbol string) string {
	symbol = strings.TrimPrefix(strings.TrimPrefix(symbol, "type:"), "*")
	symbol = strings.TrimLeft(symbol, ".*")
	parts := strings.Split(symbol, "/")
	if len(parts) == 1 || !strings.Contains(parts[0], ".") {
		return "Go's own"
	}
	n := 2
	if parts[0] == "github.com" || parts[0] == "go.etcd.io" {
		n = 3
	}
	if len(parts) < n {
		n = len(parts)
	}
	name := strings.Join(parts[:n], "/")
	if cut := strings.IndexAny(parts[n-1], ".(["); cut > 0 && n == len(parts) {
		name = strings.Join(append(slices.Clone(parts[:n-1]), parts[n-1][:cut]), "/")
	}
	return name
}

func mega(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
