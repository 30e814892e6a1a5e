package container

import (
	"encoding/json"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/scan"
)

// decodeSpec decodes a config.json. What ordinary ones have is taken by hand: before
// encoding/json reads the first byte, it works out how a Spec is written with all its
// types, of which most are of other systems, and that takes longer than all the rest
// that is done with the file. Anything out of the ordinary is decoded by it after all,
// from the beginning.
func decodeSpec(b []byte) (*specs.Spec, error) {
	s := scan.New(b)
	spec := &specs.Spec{}
	readSpec(s, spec)
	if s.Whole() {
		return spec, nil
	}
	spec = &specs.Spec{}
	if err := json.Unmarshal(b, spec); err != nil {
		return nil, fmt.Errorf("decode config.json: %w", err)
	}
	return spec, nil
}

// fresh makes what a member that comes once points to.
func fresh[T any](s *scan.Scanner, to **T) *T {
	if *to != nil {
		s.Fail()
	}
	*to = new(T)
	return *to
}

func readSpec(s *scan.Scanner, to *specs.Spec) {
	s.Members(func(key string) {
		switch key {
		case "ociVersion":
			to.Version = s.String()
		case "hostname":
			to.Hostname = s.String()
		case "domainname":
			to.Domainname = s.String()
		case "process":
			readProcess(s, fresh(s, &to.Process))
		case "root":
			root := fresh(s, &to.Root)
			s.Members(func(key string) {
				switch key {
				case "path":
					root.Path = s.String()
				case "readonly":
					root.Readonly = s.Bool()
				default:
					s.Fail()
				}
			})
		case "mounts":
			to.Mounts = scan.List(s, readMount)
		case "hooks":
			s.Decode(fresh(s, &to.Hooks))
		case "annotations":
			to.Annotations = s.Strings()
		case "linux":
			readLinux(s, fresh(s, &to.Linux))
		default:
			s.Fail()
		}
	})
}

func readProcess(s *scan.Scanner, to *specs.Process) {
	s.Members(func(key string) {
		switch key {
		case "terminal":
			to.Terminal = s.Bool()
		case "user":
			readUser(s, &to.User)
		case "args":
			to.Args = scan.List(s, readString)
		case "env":
			to.Env = scan.List(s, readString)
		case "cwd":
			to.Cwd = s.String()
		case "capabilities":
			readCapabilities(s, fresh(s, &to.Capabilities))
		case "rlimits":
			s.Decode(&to.Rlimits)
		case "noNewPrivileges":
			to.NoNewPrivileges = s.Bool()
		case "apparmorProfile":
			to.ApparmorProfile = s.String()
		case "selinuxLabel":
			to.SelinuxLabel = s.String()
		case "oomScoreAdj":
			*fresh(s, &to.OOMScoreAdj) = int(s.Number(-1<<31, 1<<31-1))
		default:
			s.Fail()
		}
	})
}

const maxUint32 = 1<<32 - 1

func readUser(s *scan.Scanner, to *specs.User) {
	s.Members(func(key string) {
		switch key {
		case "uid":
			to.UID = uint32(s.Number(0, maxUint32))
		case "gid":
			to.GID = uint32(s.Number(0, maxUint32))
		case "umask":
			*fresh(s, &to.Umask) = uint32(s.Number(0, maxUint32))
		case "additionalGids":
			to.AdditionalGids = scan.List(s, func(s *scan.Scanner, to *uint32) { *to = uint32(s.Number(0, maxUint32)) })
		default:
			s.Fail()
		}
	})
}

func readString(s *scan.Scanner, to *string) { *to = s.String() }

func readCapabilities(s *scan.Scanner, to *specs.LinuxCapabilities) {
	sets := map[string]*[]string{
		"bounding": &to.Bounding, "effective": &to.Effective, "inheritable": &to.Inheritable,
		"permitted": &to.Permitted, "ambient": &to.Ambient,
	}
	s.Members(func(key string) {
		set := sets[key]
		if set == nil {
			s.Fail()
			return
		}
		*set = scan.List(s, readString)
	})
}

func readMount(s *scan.Scanner, to *specs.Mount) {
	s.Members(func(key string) {
		switch key {
		case "destination":
			to.Destination = s.String()
		case "type":
			to.Type = s.String()
		case "source":
			to.Source = s.String()
		case "options":
			to.Options = scan.List(s, readString)
		default:
			s.Fail()
		}
	})
}

func readLinux(s *scan.Scanner, to *specs.Linux) {
	s.Members(func(key string) {
		switch key {
		case "uidMappings":
			s.Decode(&to.UIDMappings)
		case "gidMappings":
			s.Decode(&to.GIDMappings)
		case "sysctl":
			to.Sysctl = s.Strings()
		case "resources":
			readResources(s, fresh(s, &to.Resources))
		case "cgroupsPath":
			to.CgroupsPath = s.String()
		case "namespaces":
			to.Namespaces = scan.List(s, readNamespace)
		case "devices":
			s.Decode(&to.Devices)
		case "seccomp":
			s.Decode(fresh(s, &to.Seccomp))
		case "rootfsPropagation":
			to.RootfsPropagation = s.String()
		case "maskedPaths":
			to.MaskedPaths = scan.List(s, readString)
		case "readonlyPaths":
			to.ReadonlyPaths = scan.List(s, readString)
		case "mountLabel":
			to.MountLabel = s.String()
		default:
			s.Fail()
		}
	})
}

func readNamespace(s *scan.Scanner, to *specs.LinuxNamespace) {
	s.Members(func(key string) {
		switch key {
		case "type":
			to.Type = specs.LinuxNamespaceType(s.String())
		case "path":
			to.Path = s.String()
		default:
			s.Fail()
		}
	})
}

func readResources(s *scan.Scanner, to *specs.LinuxResources) {
	s.Members(func(key string) {
		switch key {
		case "devices":
			to.Devices = scan.List(s, readDeviceRule)
		case "memory":
			s.Decode(fresh(s, &to.Memory))
		case "cpu":
			s.Decode(fresh(s, &to.CPU))
		case "pids":
			pids := fresh(s, &to.Pids)
			s.Members(func(key string) {
				if key != "limit" {
					s.Fail()
					return
				}
				*fresh(s, &pids.Limit) = s.Number(-1<<63, 1<<63-1)
			})
		case "unified":
			to.Unified = s.Strings()
		default:
			s.Fail()
		}
	})
}

func readDeviceRule(s *scan.Scanner, to *specs.LinuxDeviceCgroup) {
	s.Members(func(key string) {
		switch key {
		case "allow":
			to.Allow = s.Bool()
		case "type":
			to.Type = s.String()
		case "major":
			*fresh(s, &to.Major) = s.Number(-1<<63, 1<<63-1)
		case "minor":
			*fresh(s, &to.Minor) = s.Number(-1<<63, 1<<63-1)
		case "access":
			to.Access = s.String()
		default:
			s.Fail()
		}
	})
}
