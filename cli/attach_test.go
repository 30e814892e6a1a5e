package cli

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
)

// The end of an input that is held comes when all is over, and not a byte is lost.
func TestHeldInput(t *testing.T) {
	for name, from := range map[string]io.Reader{"at once": iotest.DataErrReader(strings.NewReader("said last")), "by bytes": iotest.OneByteReader(strings.NewReader("said last"))} {
		synctest.Test(t, func(t *testing.T) {
			over, ended := make(chan struct{}), false
			h := &held{from, over}
			var got strings.Builder
			go func() {
				_, _ = io.Copy(&got, h)
				ended = true
			}()
			synctest.Wait()
			if ended || got.String() != "said last" {
				t.Errorf("%s: ended %v after %q", name, ended, got.String())
			}
			close(over)
			synctest.Wait()
			if !ended {
				t.Errorf("%s: it has no end", name)
			}
		})
	}
}
