package volume

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// A token is kept until most of its life has passed, by the clock by which it ends: one
// that the clock has left behind, or has not come to yet, is replaced.
func TestTokensFollowTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		minted := 0
		c := newTokenCache(func(context.Context, *corev1.Pod, TokenRequest) (string, time.Time, error) {
			minted++
			return fmt.Sprint(minted), time.Now().Add(time.Hour), nil
		})
		key := tokenKey{uid: "p", seconds: 3600}
		get := func(want string) {
			t.Helper()
			got, renew, err := c.get(t.Context(), &corev1.Pod{ObjectMeta: podWith().ObjectMeta}, TokenRequest{Seconds: 3600})
			if err != nil || got != want {
				t.Errorf("token %q, want %q: %v", got, want, err)
			}
			if renew != renew.Round(0) {
				t.Error("the time of renewal is not one of the clock alone")
			}
		}
		key.uid = string(podWith().UID)
		get("1")
		time.Sleep(40 * time.Minute)
		get("1")
		held, ok := c.lookup(key)
		if !ok {
			t.Fatal("the token is not kept")
		}
		held.minted = held.minted.Add(2 * time.Hour) // as if the clock had been set back since
		c.store(key, held)
		get("2")
		time.Sleep(50 * time.Minute)
		get("3")
	})
}
