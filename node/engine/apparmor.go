package engine

import (
	"fmt"
	"log/slog"
	"sync"

	moby "github.com/moby/profiles/apparmor"

	"github.com/sampan-dev/sampan/internal/apparmor"
)

// defaultAppArmor is the name of the profile that containers run under which ask for
// none, and for the runtime's.
const defaultAppArmor = "sampan-default"

// appArmor are this node's profiles. The default one is loaded when the first container
// wants it: that takes apparmor_parser, a program of the host's, which every
// distribution that has AppArmor installs with it.
type appArmor struct {
	load func() error
}

func newAppArmor(log *slog.Logger) appArmor {
	return appArmor{load: sync.OnceValue(func() error {
		err := loadDefaultAppArmor()
		if err != nil {
			log.Warn("containers that ask for no AppArmor profile run without one", "err", err)
		}
		return err
	})}
}

func (appArmor) Enabled() bool { return apparmor.Enabled() }

func (appArmor) Loaded(name string) (bool, error) { return apparmor.Loaded(name) }

func (a appArmor) Default() (string, error) {
	if err := a.load(); err != nil {
		return "", err
	}
	return defaultAppArmor, nil
}

// loadDefaultAppArmor keeps a profile that is there: containers of an engine before this
// one run under it.
func loadDefaultAppArmor() error {
	loaded, err := apparmor.Loaded(defaultAppArmor)
	if err != nil || loaded {
		return err
	}
	if err := moby.InstallDefault(defaultAppArmor); err != nil {
		return fmt.Errorf("load AppArmor profile %q: %w", defaultAppArmor, err)
	}
	return nil
}

// forgetAppArmor takes away what Default has loaded.
func forgetAppArmor() error {
	if !apparmor.Enabled() {
		return nil
	}
	return apparmor.Remove(defaultAppArmor)
}
