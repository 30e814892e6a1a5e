package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	speak "github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/sampan-dev/sampan/node/container"
)

func showVersion() error {
	_, err := fmt.Printf("sampan oci\nspec: %s\n", specs.Version)
	return err
}

// features says what this runtime can, as the specification's features.md has it.
func features(*program, []string) error {
	yes, no := true, false
	return printJSON(speak.Features{
		OCIVersionMin: "1.0.0", OCIVersionMax: specs.Version,
		Hooks:        []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"},
		MountOptions: container.MountOptions(),
		Linux: &speak.Linux{
			Namespaces:   []string{"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"},
			Capabilities: container.AllCapabilities(),
			Cgroup:       &speak.Cgroup{V1: &yes, V2: &yes, Systemd: &no, SystemdUser: &no, Rdma: &no},
			Seccomp: &speak.Seccomp{
				Enabled: &yes, Actions: container.SeccompActions(), Operators: container.SeccompOperators(),
				KnownFlags: container.SeccompFlags(), SupportedFlags: container.SeccompFlags(),
			},
			NetDevices: &speak.NetDevices{Enabled: &yes},
			Apparmor:   &speak.Apparmor{Enabled: &yes}, Selinux: &speak.Selinux{Enabled: &yes},
			MemoryPolicy:    &speak.MemoryPolicy{Modes: container.MemoryModes(), Flags: container.MemoryFlags()},
			IntelRdt:        &speak.IntelRdt{Enabled: &no},
			MountExtensions: &speak.MountExtensions{IDMap: &speak.IDMap{Enabled: &yes}},
		},
	})
}

// spec writes a config.json to begin with.
func spec(_ *program, args []string) error {
	f := verb("spec")
	bundle := f.String("bundle", ".", "directory to write config.json to")
	f.StringVar(bundle, "b", ".", "directory to write config.json to")
	if _, err := parse(f, args, 0, 0); err != nil {
		return err
	}
	s := container.DefaultSpec()
	s.Process.Args, s.Process.Terminal = []string{"sh"}, true
	s.Root = &specs.Root{Path: "rootfs", Readonly: true}
	s.Hostname = "sampan"
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		return err
	}
	out, err := os.OpenFile(filepath.Join(*bundle, "config.json"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	_, err = out.Write(b)
	return errors.Join(err, out.Close())
}
