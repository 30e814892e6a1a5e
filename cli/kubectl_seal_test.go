package cli

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
		{sealTries + 5, sealTries, nil, unix.EBUSY},
	} {
		tries := 0
		err := unheld(func() error {
			if tries++; tries <= c.busy {
				return unix.EBUSY
			}
			return c.then
		})
		if !errors.Is(err, c.want) || tries != c.tries {
			t.Errorf("busy %d times, then %v: %v after %d tries", c.busy, c.then, err, tries)
		}
	}
}
