package scheduler

// maxInterned bounds the strings that an intern knows; then it begins anew.
const maxInterned = 1024

// intern gives equal keys the same string, made once: nearly all pods are like
// others. One goroutine owns it.
type intern struct {
	known map[string]string
	// room is where a key is put together.
	room []byte
}

// of is the key that write appends.
func (i *intern) of(write func([]byte) []byte) string {
	i.room = write(i.room[:0])
	if s, ok := i.known[string(i.room)]; ok {
		return s
	}
	if len(i.known) >= maxInterned || i.known == nil {
		i.known = map[string]string{}
	}
	s := string(i.room)
	i.known[s] = s
	return s
}
