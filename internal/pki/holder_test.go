package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A leaf that is not what is wanted any more is replaced at once, and where that fails
// every hour: it is as good as before until then.
func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		authority, err := Temporary(time.Now)
		if err != nil {
			t.Fatal(err)
		}
		asked, refused := 0, 3
		h, err := NewHolder(func() (*tls.Certificate, error) {
			asked++
			if asked == 1 {
				return authority.Issue(Leaf{CommonName: "old", Client: true})
			}
			if asked <= 1+refused {
				return nil, errors.New("not yet")
			}
			return authority.Issue(Leaf{CommonName: "new", Client: true})
		}, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		h.Replace(func(c *x509.Certificate) bool { return c.Subject.CommonName == "old" })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		began, took := time.Now(), time.Duration(0)
		go func() {
			_ = h.Run(ctx, slog.New(slog.DiscardHandler), func(*tls.Certificate) { took = time.Since(began) })
		}()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got := h.Leaf().Leaf.Subject.CommonName; got != "new" || asked != 2+refused || took != 3*time.Hour+time.Second {
			t.Errorf("after a day: %q, asked %d times, had after %v", got, asked, took)
		}
	})
}
