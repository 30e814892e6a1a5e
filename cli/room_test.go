package cli

import (
	"bytes"
	"strings"
	"testing"
)

// What takes room is added up a kind, and told one by one.
func TestRoom(t *testing.T) {
	all := []tenant{
		{Type: roomImages, Name: "app:1", ID: "aaaa", Size: "2.0 kB", Links: 2, bytes: 2000, active: true}, {Type: roomImages, Name: noName, bytes: 400},
		{Type: roomImages, Name: "<damaged>", bytes: 100, rest: true},
		{Type: roomContainers, Name: "web", Status: "Up 3s", bytes: 7, active: true}, {Type: roomVolumes, Name: "data", Size: "1 B", Links: 1, bytes: 1, active: true},
	}
	rows := roomOf(all)
	if want := (roomView{roomImages, 2, 1, "2.5 kB", "500 B"}); len(rows) != 4 || rows[0] != want || rows[3] != (roomView{roomBuilds, 0, 0, "0 B", "0 B"}) {
		t.Errorf("%+v", rows)
	}
	var out bytes.Buffer
	if err := printTenants(&out, all); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Images space usage:\n\nIMAGE       IMAGE ID   SIZE", "app:1       aaaa       2.0 kB   2\n", "web    ", "data          1       1 B\n", "Build cache usage:"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}
