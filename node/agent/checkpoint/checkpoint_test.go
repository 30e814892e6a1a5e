package checkpoint

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

type state struct{ Names map[string]int }

func TestRoundTripAndDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "state")
	var got state
	if found, err := Load(path, &got); found || err != nil {
		t.Fatalf("nothing there: %v %v", found, err)
	}
	want := state{Names: map[string]int{"a": 1}}
	if err := Save(path, want); err != nil {
		t.Fatal(err)
	}
	if found, err := Load(path, &got); !found || err != nil || got.Names["a"] != 1 {
		t.Fatalf("%v %v %v", got, found, err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": good[:len(good)-4], "flipped": bytes.Replace(good, []byte(`"a":1`), []byte(`"a":2`), 1), "empty": {}} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if found, err := Load(path, &got); found || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v %v", name, found, err)
		}
		if _, err := os.Stat(path + ".corrupt"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if found, err := Load(path, &got); found || err != nil {
			t.Errorf("%s, the second time: %v %v", name, found, err)
		}
	}
}
