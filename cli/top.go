package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
)

func topCommand(p Program, s *Settings) *cobra.Command {
	namespace := ""
	cmd := &cobra.Command{
		Use: "top NAME [PS-OPTIONS]", Short: "Show the processes of a container", Args: cobra.MinimumNArgs(1),
		Long: `Show the processes of a container on this machine, in the columns of ps -ef, or those that
are asked for as of ps: aux, or -o with names of columns. Their numbers are those that this
machine knows them by.

  sampan top web
  sampan top web aux
  sampan top web -o pid,rss,args`,
		RunE: func(cmd *cobra.Command, args []string) error {
			shown, err := psColumns(args[1:])
			if err != nil {
				return err
			}
			_, pod, err := s.podOf(cmd.Context(), namespace, args[0])
			if err != nil {
				return err
			}
			first, err := p.firstProcess(cmd.Context(), s, pod)
			if err != nil {
				return err
			}
			return processesOf("/proc", first, shown, cmd.OutOrStdout())
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows the name are words of ps, in docker
	cmd.Flags().StringVarP(&namespace, "namespace", "n", "", "namespace of the pod (default: that of the kubeconfig)")
	return cmd
}

// firstProcess is the first process of a pod's container, on this machine.
func (p Program) firstProcess(ctx context.Context, s *Settings, pod *corev1.Pod) (int, error) {
	if !look(pod).running {
		return 0, fmt.Errorf("%s does not run", pod.Name)
	}
	pid, err := 0, errors.ErrUnsupported
	if p.Process != nil {
		pid, err = p.Process(ctx, *s, string(pod.UID))
	}
	if errors.Is(err, os.ErrProcessDone) {
		return 0, fmt.Errorf("%s does not run", pod.Name)
	}
	if errors.Is(err, errors.ErrUnsupported) {
		return 0, fmt.Errorf("%s: its processes are not on this machine, or not ours: sampan exec reaches it everywhere", pod.Name)
	}
	return pid, err
}

// process is a line of top.
type process struct {
	pid, parent, group, session int
	nice, threads               int
	uid, user, tty, state       string
	start, used                 time.Duration // since the machine's start; of processor
	memory, space               int64         // in bytes: what lies in memory, and what is mapped
	name, command               string
}

// ticks are the kernel's for user space: a hundred a second on every machine of ours.
const tick = 10 * time.Millisecond

// processesOf prints the processes in a process's cgroup and those below it.
func processesOf(proc string, first int, shown []column, out io.Writer) error {
	group, err := cgroupOf(proc, first)
	if err != nil {
		return fmt.Errorf("process %d: %w", first, err)
	}
	uptime, err := os.ReadFile(filepath.Join(proc, "uptime"))
	if err != nil {
		return err
	}
	seconds, _, _ := strings.Cut(string(uptime), " ")
	up, err := time.ParseDuration(seconds + "s")
	if err != nil {
		return fmt.Errorf("uptime %q: %w", seconds, err)
	}
	entries, err := os.ReadDir(proc)
	if err != nil {
		return err
	}
	var all []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if g, err := cgroupOf(proc, pid); err != nil || g != group && !strings.HasPrefix(g, group+"/") {
			continue
		}
		if p, err := readProcess(filepath.Join(proc, e.Name())); err == nil { // else it has just ended
			p.pid = pid
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b process) int { return cmp.Compare(a.pid, b.pid) })
	return printProcesses(out, all, shown, machine{boot: time.Now().Add(-up), up: up, memory: memoryOf(proc)})
}

// cgroupOf is the cgroup that a process is counted in, of the hierarchy that counts
// processes.
func cgroupOf(proc string, pid int) (string, error) {
	raw, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return "", err
	}
	whole := ""
	for line := range strings.Lines(string(raw)) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3:
		case slices.Contains(strings.Split(fields[1], ","), "pids"):
			return fields[2], nil
		case fields[0] == "0":
			whole = fields[2]
		}
	}
	if whole == "" || whole == "/" {
		return "", errors.New("it is in no cgroup of its own")
	}
	return whole, nil
}

// readProcess reads what the kernel tells of one: see proc(5).
func readProcess(dir string) (process, error) {
	var p process
	raw, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return p, err
	}
	text := string(raw)
	open, shut := strings.IndexByte(text, '('), strings.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return p, errors.New("stat makes no sense")
	}
	f := strings.Fields(text[shut+1:])
	if len(f) < 22 {
		return p, errors.New("stat is short")
	}
	number := func(i int) int { n, _ := strconv.Atoi(f[i]); return n } // the kernel writes numbers
	p.state, p.parent, p.group, p.session, p.tty = f[0], number(1), number(2), number(3), terminalName(number(4))
	p.nice, p.threads, p.space, p.memory = number(16), number(17), int64(number(20)), int64(number(21))*int64(os.Getpagesize())
	p.name = printable(text[open+1 : shut])
	p.used, p.start = time.Duration(number(11)+number(12))*tick, time.Duration(number(19))*tick
	words, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return p, err
	}
	if p.command = strings.TrimSpace(strings.ReplaceAll(string(words), "\x00", " ")); p.command == "" {
		p.command = "[" + text[open+1:shut] + "]"
	}
	p.command = printable(p.command)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return p, err
	}
	for line := range strings.Lines(string(status)) {
		if ids, ok := strings.CutPrefix(line, "Uid:"); ok && len(strings.Fields(ids)) > 1 {
			p.uid = strings.Fields(ids)[1]
		}
	}
	if p.user = p.uid; p.uid == "0" {
		p.user = "root"
	}
	return p, nil
}

// terminalName is a terminal's by its device number.
func terminalName(device int) string {
	if major, minor := device>>8&0xfff, device&0xff|device>>12&0xfff00; major >= 136 && major <= 143 {
		return "pts/" + strconv.Itoa((major-136)<<8+minor)
	}
	return "?"
}
