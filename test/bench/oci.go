package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// ociRuns is how often each runtime runs a container; they take turns, so that
// whatever else the machine does disturbs them alike.
const ociRuns = 100

// ociPeers are the runtimes that sampan is compared with where they are installed,
// with the aim.
var ociPeers = []struct{ name, aim string }{{"crun", "<= 0.6"}, {"runc", ""}}

// oci measures `run` of a container whose program does nothing, beside the same of
// other runtimes, with their own config.json, and beside the program alone.
func oci(ctx context.Context) ([]row, error) {
	if runtime.GOARCH != "amd64" {
		return nil, nil // nothing is written in its machine code
	}
	type result struct {
		rows []row
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // in a mount namespace of its own, with which it ends
		rows, err := ociAlone(ctx)
		done <- result{rows, err}
	}()
	r := <-done
	return r.rows, r.err
}

func ociAlone(ctx context.Context) ([]row, error) {
	if err := withoutHybrid(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "sampan-bench-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	nothing, err := ociBundle(dir)
	if err != nil {
		return nil, err
	}
	program, err := filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	commands := map[string][]string{
		"nothing": {nothing},
		"sampan":  {program, "oci", "--root", filepath.Join(dir, "sampan"), "run", "--bundle", dir},
	}
	for _, p := range ociPeers {
		if path, err := exec.LookPath(p.name); err == nil {
			commands[p.name] = []string{path, "--root", filepath.Join(dir, p.name), "run", "--bundle", dir}
		}
	}
	took, err := takeTurns(ctx, commands)
	if err != nil {
		return nil, err
	}
	return ociRows(took), nil
}

// withoutHybrid hides the unified hierarchy of a machine that has both: crun wants
// one or the other.
func withoutHybrid() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	err := unix.Unmount("/sys/fs/cgroup/unified", 0)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("hide the unified hierarchy: %w", err)
	}
	return nil
}

// takeTurns runs the commands again and again and gives the times of each.
func takeTurns(ctx context.Context, commands map[string][]string) (map[string][]time.Duration, error) {
	took := map[string][]time.Duration{}
	for i := range ociRuns {
		for name, argv := range commands {
			if name != "nothing" {
				argv = append(argv[:len(argv):len(argv)], fmt.Sprintf("bench-%d-%d", os.Getpid(), i))
			}
			begin := time.Now()
			if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("%s: %w: %s", name, err, out)
			}
			took[name] = append(took[name], time.Since(begin))
		}
	}
	for _, d := range took {
		slices.Sort(d)
	}
	return took, nil
}

func ociRows(took map[string][]time.Duration) []row {
	show := func(name string) string {
		d := took[name]
		return fmt.Sprintf("%.1f ms median, %.1f ms best tenth", milli(d[len(d)/2]), milli(d[len(d)/10]))
	}
	rows := []row{{"fork and exec of a program that does nothing", show("nothing"), ""}, {"sampan oci run of it", show("sampan"), ""}}
	ours := took["sampan"]
	for _, p := range ociPeers {
		theirs, ok := took[p.name]
		if !ok {
			continue
		}
		middle, tenth := len(ours)/2, len(ours)/10
		rows = append(rows, row{p.name + " run of it", show(p.name), ""}, row{
			"… sampan's time of " + p.name + "'s",
			fmt.Sprintf("%.2f by medians, %.2f by best tenths", milli(ours[middle])/milli(theirs[middle]), milli(ours[tenth])/milli(theirs[tenth])),
			p.aim,
		})
	}
	return rows
}

func milli(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// ociBundle makes a bundle whose program does nothing, and gives its path.
func ociBundle(dir string) (string, error) {
	for _, d := range []string{"bin", "proc", "sys", "dev", "etc", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			return "", err
		}
	}
	nothing := filepath.Join(dir, "rootfs/bin/nothing")
	if err := os.WriteFile(nothing, exitZero(), 0o755); err != nil {
		return "", err
	}
	program, err := filepath.Abs(binary)
	if err != nil {
		return "", err
	}
	spec := exec.Command(program, "oci", "spec", "--bundle", dir)
	if out, err := spec.CombinedOutput(); err != nil {
		return "", fmt.Errorf("oci spec: %w: %s", err, out)
	}
	path := filepath.Join(dir, "config.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	var config map[string]any
	if err := json.Unmarshal(b, &config); err != nil {
		return "", err
	}
	process, _ := config["process"].(map[string]any)
	process["terminal"], process["args"] = false, []string{"/bin/nothing"}
	config["ociVersion"] = "1.0.0" // Debian's crun wants no younger one
	if b, err = json.Marshal(config); err != nil {
		return "", err
	}
	return nothing, os.WriteFile(path, b, 0o600)
}
