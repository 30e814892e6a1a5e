package sealed

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel holds for a moment is tried again, and not for ever; other faults are told.
func TestUnheld(t *testing.T) {
	for _, c := range []struct {
		busy, tries int
		then, want  error
	}{
		{0, 1, nil, nil},
		{3, 4, nil, nil},
		{1, 2, unix.EPERM, unix.EPERM},
		{tries + 5, tries, nil, unix.EBUSY},
	} {
		did := 0
		err := unheld(func() error {
			if did++; did <= c.busy {
				return unix.EBUSY
			}
			return c.then
		})
		if !errors.Is(err, c.want) || did != c.tries {
			t.Errorf("busy %d times, then %v: %v after %d tries", c.busy, c.then, err, did)
		}
	}
}
