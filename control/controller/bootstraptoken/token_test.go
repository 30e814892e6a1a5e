package bootstraptoken

import "testing"

// A signature is what others verify: HS256 over header and content, with the token's
// secret as its key and its id in the header. The first is what
// upstream's signer makes of the same words; the other was computed apart from both.
func TestDetached(t *testing.T) {
	for _, c := range []struct{ content, id, secret, want string }{
		{"Hello from the other side. I must have called a thousand times.", "joshua", "my voice is my passcode",
			"eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"},
		{"here", "abcdef", "0123456789abcdef", "eyJhbGciOiJIUzI1NiIsImtpZCI6ImFiY2RlZiJ9..MJWjsSO6Z8upPYVe0Z2Yd_gDAfgKt5hMYhL7k0OHq4E"},
	} {
		if got, err := detached(c.content, c.id, c.secret); err != nil || got != c.want {
			t.Errorf("%q signed with token %s: %s, %v; want %s", c.content, c.id, got, err, c.want)
		}
	}
}
