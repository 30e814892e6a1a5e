package apiserver

import "net/http"

// depth is what a request needs of its goroutine's stack: a read some 8 KiB, a
// write, which decodes, tracks owners and encodes, some 14.
const depth = 12 << 10

// deep makes the goroutine's stack as large as a request needs it, at once. Each
// HTTP/2 request has a goroutine of its own that begins with a small stack: left
// to itself it is moved four or five times, the last times from deep within,
// which costs a tenth of the request.
func deep(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		deepen()
		next.ServeHTTP(w, r)
	})
}

//go:noinline
func deepen() {
	var room [depth]byte
	touch(&room)
}

//go:noinline
func touch(room *[depth]byte) { room[0] = 1 }
