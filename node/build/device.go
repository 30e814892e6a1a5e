package build

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"github.com/sampan-dev/sampan/node/image"
)

// Devices is what a Runner is, too, that has devices for RUN --device.
type Devices interface {
	// FindDevices are the devices that a pattern stands for: vendor/class=name for one,
	// vendor/class for the first of a kind, vendor/class=* for all, or a word that their
	// vendor gives to several.
	FindDevices(pattern string) []Device
}

// Device is one that a RUN may have.
type Device struct {
	// Name is vendor/class=name.
	Name string
	// Free: its vendor lets every build have it.
	Free bool
}

// devices are the names of those that a RUN asks for. One that is not there is left out,
// unless it is required, which the reader is told.
func (b *builder) devices(s step, wanted []*instructions.Device) ([]string, error) {
	var names []string
	for _, w := range wanted {
		var found []Device
		if has, ok := b.opts.Runner.(Devices); ok {
			found = has.FindDevices(w.Name)
		}
		if len(found) == 0 && w.Required {
			return nil, fmt.Errorf("required device %q is not registered: no file in /etc/cdi or /var/run/cdi has it: %w", w.Name, image.ErrNotFound)
		}
		if len(found) == 0 {
			event := s.event
			event.Output = fmt.Appendf(nil, "device %s is left out: it is not registered\n", w.Name)
			b.opts.Progress(event)
		}
		for _, d := range found {
			if !d.Free && !deviceAllowed(b.opts.AllowDevices, w.Name, d.Name) {
				return nil, fmt.Errorf("device %s is requested by the build but not allowed: --allow device=%s: %w", d.Name, d.Name, image.ErrDenied)
			}
			if !slices.Contains(names, d.Name) {
				names = append(names, d.Name)
			}
		}
	}
	return names, nil
}

// deviceAllowed says whether one of the names that were allowed is that of a device, of its
// kind, or what was asked for; "" allows all.
func deviceAllowed(allowed []string, asked, name string) bool {
	kind, _, _ := strings.Cut(name, "=")
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == "" || a == name || a == asked || a == kind || a == kind+"=*"
	})
}
