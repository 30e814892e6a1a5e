package all

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
	"github.com/sampan-dev/sampan/control/controller/nodeipam"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/reconcile"
)

// Declaration is what a controller says of itself.
type Declaration struct {
	Name string
	// Components are the names of its users at the API server, without
	// system:serviceaccount:kube-system.
	Components []string
	Reads      []schema.GroupVersionResource
	Writes     []reconcile.Write
	// ReadsAll says that it reads every kind there is; WritesAll are the parts that
	// it writes of every kind.
	ReadsAll  bool
	WritesAll []string
}

// Declared makes every controller without running it, and returns what they
// declare, by name. Nothing is asked of any server.
func Declared() ([]Declaration, error) {
	s, err := New(Config{
		Transport: func(string) client.Transport { return nil },
		Kinds:     controller.NewKinds(), Log: slog.New(slog.DiscardHandler),
		Authority: &pki.Authority{}, TokenKey: &pki.TokenKey{}, RootCA: []byte("of no cluster"),
		NodeRanges: nodeipam.Config{Clusters: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
		LocalPath:  true,
	})
	if err != nil {
		return nil, err
	}
	var all []Declaration
	for i, c := range s.Controllers {
		d := Declaration{Name: c.Name(), Components: slices.Compact(s.components[i]), Reads: c.Reads(), Writes: c.Writes()}
		if e, ok := c.(controller.Everywhere); ok {
			d.ReadsAll, d.WritesAll = e.Everywhere()
		}
		all = append(all, d)
	}
	slices.SortFunc(all, func(a, b Declaration) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}
