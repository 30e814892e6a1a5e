package seal_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/internal/seal"
)

func sealer(t *testing.T, keys ...seal.Key) *seal.Sealer {
	t.Helper()
	s, err := seal.New(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSeal(t *testing.T) {
	old := seal.Key{Name: "old", Secret: bytes.Repeat([]byte{1}, 32)}
	fresh := seal.Key{Name: "new", Secret: bytes.Repeat([]byte{2}, 32)}
	const place = "/registry/secrets/default/a"
	sealed, err := sealer(t, old).Seal(place, []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(sealed), "k8s:enc:aesgcm:v1:old:") || bytes.Contains(sealed, []byte("plain")) {
		t.Fatalf("sealed bytes are %q", sealed)
	}
	broken := bytes.Clone(sealed)
	broken[len(broken)-1] ^= 1
	for _, c := range []struct {
		name   string
		keys   []seal.Key
		place  string
		data   []byte
		stale  bool
		sealed bool
	}{
		{name: "same key", keys: []seal.Key{old}, place: place, data: sealed},
		{name: "rotated key", keys: []seal.Key{fresh, old}, place: place, data: sealed, stale: true},
		{name: "never sealed", keys: []seal.Key{old}, place: place, data: []byte("plain"), stale: true},
		{name: "another place", keys: []seal.Key{old}, place: place + "b", data: sealed, sealed: true},
		{name: "key lost", keys: []seal.Key{fresh}, place: place, data: sealed, sealed: true},
		{name: "one bit wrong", keys: []seal.Key{old}, place: place, data: broken, sealed: true},
		{name: "cut short", keys: []seal.Key{old}, place: place, data: sealed[:26], sealed: true},
	} {
		plain, stale, err := sealer(t, c.keys...).Open(c.place, c.data)
		if c.sealed {
			if !errors.Is(err, seal.ErrSealed) {
				t.Errorf("%s: got %q, %v", c.name, plain, err)
			}
			continue
		}
		if err != nil || string(plain) != "plain" || stale != c.stale {
			t.Errorf("%s: got %q, stale %v, %v", c.name, plain, stale, err)
		}
	}
}

func TestBadKeys(t *testing.T) {
	for _, keys := range [][]seal.Key{
		nil,
		{{Name: "", Secret: make([]byte, 32)}},
		{{Name: "a:b", Secret: make([]byte, 32)}},
		{{Name: "short", Secret: make([]byte, 8)}},
	} {
		if _, err := seal.New(keys...); err == nil {
			t.Errorf("keys %v were taken", keys)
		}
	}
}
