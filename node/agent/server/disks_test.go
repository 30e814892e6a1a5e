package server

import (
	"slices"
	"strings"
	"testing"
)

// Disks with nothing mounted, and lines of kernels that count less, are left out.
func TestMountedDisks(t *testing.T) {
	got := mountedDisks(` 254       0 vda 11 12 13 14 15 16 17 18 19 20 21 22 23
 254       1 vda1 1 2 3 4 5 6 7 8 9 10 11
   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0
   8       0 sda 1 2
`, `21 1 254:1 / / rw - ext4 /dev/vda1 rw
22 21 254:0 /x /data rw - ext4 /dev/vda rw
23 21 8:0 / /old rw - ext4 /dev/sda rw
`)
	if len(got) != 2 || got[0].name != "vda" || got[1].name != "vda1" || !slices.Equal(got[1].columns[:], []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}) {
		t.Errorf("%+v", got)
	}
	var p page
	p.disks() // of this machine, whatever it has
	for _, c := range diskColumns {
		if !strings.Contains(p.text.String(), "# TYPE "+c.name+" "+c.kind+"\n") {
			t.Errorf("%s is not told of", c.name)
		}
	}
}
