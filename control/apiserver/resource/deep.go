package resource

// depth is what a write needs of its goroutine's stack: decoding, tracking of
// owners and encoding call each other up to 12 KiB deep.
const depth = 12 << 10

// deepen makes the goroutine's stack as large as a write needs it, at once. Each
// HTTP/2 request has a goroutine of its own that begins with a small stack: left
// to itself it is moved four or five times, the last times from deep within,
// which costs a twelfth of the request.
//
//go:noinline
func deepen() {
	var room [depth]byte
	touch(&room)
}

//go:noinline
func touch(room *[depth]byte) { room[0] = 1 }
