package cache

// Loose is an entry of no cache: an object that is not stored, in its stored form.
// It has no revision.
func Loose(cfg *Config, key string, value []byte) *Entry {
	return &Entry{cfg: cfg, key: key, raw: value}
}
