package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sampan-dev/sampan/node/container"
	"github.com/sampan-dev/sampan/node/container/criu"
)

// shared are the flags that checkpoint and restore have in common, as runc has them.
func shared(f *flag.FlagSet, c *criu.Common) {
	f.StringVar(&c.Images, "image-path", "", "directory of criu's images (default: checkpoint)")
	f.StringVar(&c.Work, "work-path", "", "directory of logs and statistics (default: that of the images)")
	f.BoolVar(&c.Established, "tcp-established", false, "with TCP connections that stand")
	f.BoolVar(&c.UnixSockets, "ext-unix-sk", false, "with unix sockets whose other end is outside")
	f.BoolVar(&c.ShellJob, "shell-job", false, "with a session and a terminal from outside")
	f.BoolVar(&c.FileLocks, "file-locks", false, "with locks of files")
	f.BoolVar(&c.AutoDedup, "auto-dedup", false, "drop from earlier images what is in later ones")
	f.StringVar(&c.Cgroups, "manage-cgroups-mode", "", "soft, full, strict, ignore ... (default: soft for checkpoint, ignore for restore)")
	empty := func(kind string) error {
		if kind != "network" {
			return fmt.Errorf("namespace %q is not supported", kind)
		}
		c.EmptyNet = true
		return nil
	}
	f.Func("empty-ns", "leave the content of a namespace (network) to others", empty)
	f.Func("lazy-pages", "refused", func(string) error { return errors.New("pages are not left for later here") })
}

// images completes the directories.
func images(c *criu.Common) error {
	if c.Images == "" {
		c.Images = "checkpoint"
	}
	for _, dir := range []*string{&c.Images, &c.Work} {
		if *dir == "" {
			continue
		}
		path, err := filepath.Abs(*dir)
		if err != nil {
			return err
		}
		*dir = path
	}
	return nil
}

func checkpoint(p *program, args []string) error {
	f, o := verb("checkpoint"), container.OCICheckpoint{}
	shared(f, &o.Common)
	f.BoolVar(&o.LeaveRunning, "leave-running", false, "let the container run on")
	f.BoolVar(&o.Pre, "pre-dump", false, "memory alone, and let the container run on")
	f.BoolVar(&o.LinkRemap, "link-remap", false, "with deleted files that have other names")
	f.BoolVar(&o.SkipInFlight, "tcp-skip-in-flight", false, "without TCP connections that are being made")
	f.StringVar(&o.Parent, "parent-path", "", "directory of an earlier pre-dump, from that of the images")
	id, err := one(f, args)
	if err != nil {
		return err
	}
	if err := p.needs(); err != nil {
		return err
	}
	if err := images(&o.Common); err != nil {
		return err
	}
	return p.oci.Checkpoint(p.ctx, id, o)
}

func restore(p *program, args []string) error {
	f, o, c := verb("restore"), container.OCIRestore{}, creation{}
	c.flags(f)
	shared(f, &o.Common)
	f.StringVar(&o.LSM, "lsm-profile", "", "profile of a security module, as TYPE:NAME")
	f.String("lsm-mount-context", "", "accepted and ignored: mounts have the label that the bundle has (linux.mountLabel)")
	detach := f.Bool("detach", false, "return once the processes run")
	f.BoolVar(detach, "d", false, "return once the processes run")
	id, err := one(f, args)
	if err != nil {
		return err
	}
	if !*detach {
		return errors.New("restore: only with --detach: nobody is here to wait for a process that is not a child")
	}
	if err := p.needs(); err != nil {
		return err
	}
	if err := images(&o.Common); err != nil {
		return err
	}
	o.Bundle, o.PidFile, o.Stdio = c.bundle, c.pidFile, [3]*os.File{os.Stdin, os.Stdout, os.Stderr}
	return p.oci.Restore(p.ctx, id, o)
}
