package container

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/sampan-dev/sampan/node/container/seccomp"
)

// What is said to be known of seccomp filters compiles.
func TestSeccompFlags(t *testing.T) {
	for _, flag := range SeccompFlags() {
		_, err := seccomp.Compile(&specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlag(flag)},
		})
		if err != nil {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
