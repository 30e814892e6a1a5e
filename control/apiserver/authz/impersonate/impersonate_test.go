package impersonate

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sampan-dev/sampan/control/apiserver/authz"
	"github.com/sampan-dev/sampan/internal/identity"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// Each transcript is a story: "may" gives the caller a permission, "take" takes
// all of them away, "act" is a request under another name. What was asked of
// authorisation, and what came of it, is the answer.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(raw))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got != string(raw) {
				t.Errorf("%s is now:\n%s", file, got)
			}
		})
	}
}

// stage is what a story is played on.
type stage struct {
	may   map[string]bool
	asked []string
	gate  *Gate
}

func (s *stage) decide(_ context.Context, q authz.Attributes) (authz.Decision, string) {
	words := fmt.Sprintf("%s %s", q.Verb, q.Path)
	if q.Path == "" {
		words = fmt.Sprintf("%s %s %s/%s/%s", q.Verb, strings.Trim(q.Group+"/"+q.Resource+"/"+q.Subresource, "/"), q.Namespace, q.Name, strings.Join(q.User.Extra[associatedKeys], ","))
	}
	words = strings.TrimRight(words, "/")
	s.asked = append(s.asked, words)
	if s.may[words] {
		return authz.Allow, ""
	}
	return authz.NoOpinion, ""
}

func play(t *testing.T, text string) string {
	t.Helper()
	s := &stage{may: map[string]bool{}}
	s.gate = New(s.decide)
	var out strings.Builder
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "    ") {
			continue
		}
		out.WriteString(line + "\n")
		verb, rest, _ := strings.Cut(line, " ")
		switch verb {
		case "may":
			s.may[rest] = true
		case "take":
			clear(s.may)
		case "act":
			for _, l := range s.act(t, rest) {
				out.WriteString("    " + l + "\n")
			}
		}
	}
	return out.String()
}

// act reads "CALLER[@NODE] VERB RESOURCE[/SUB]|PATH HEADER=VALUE...".
func (s *stage) act(t *testing.T, line string) []string {
	t.Helper()
	w := strings.Fields(line)
	name, node, _ := strings.Cut(w[0], "@")
	caller := identity.Identity{Name: name, Groups: []string{identity.Authenticated}}
	if node != "" {
		caller.Extra = map[string][]string{nodeOfBearer: {node}, "authentication.kubernetes.io/pod-name": {"p"}}
	}
	q := authz.Attributes{User: caller, Verb: w[1]}
	if strings.HasPrefix(w[2], "/") {
		q.Path = w[2]
	} else {
		q.Namespace = "x"
		q.Resource, q.Subresource, _ = strings.Cut(w[2], "/")
	}
	h := http.Header{}
	for _, given := range w[3:] {
		k, v, _ := strings.Cut(given, "=")
		h.Add("Impersonate-"+k, v)
	}
	wanted, err := Wanted(h)
	if err != nil || wanted == nil {
		return []string{fmt.Sprintf("no: %v", err)}
	}
	s.asked = nil
	v, err := s.gate.Become(t.Context(), wanted, q)
	answer := s.asked
	if err != nil {
		return append(answer, "no: "+err.Error())
	}
	return append(answer, fmt.Sprintf("yes: %s %s uid=%s extra=%v by %q", v.User.Name, v.User.Groups, v.User.UID, v.User.Extra, v.Constraint))
}

func TestWanted(t *testing.T) {
	h := http.Header{"Impersonate-User": {"bob"}, "Impersonate-Group": {"crew"}, "Impersonate-Extra-Why%2fnot": {"because"}, "Impersonate-Extra-Empty": {}, "Accept": {"x"}}
	w, err := Wanted(h)
	if err != nil || w.Name != "bob" || !slices.Equal(w.Groups, []string{"crew"}) || !slices.Equal(w.Extra["why/not"], []string{"because"}) || len(w.Extra) != 1 {
		t.Errorf("wanted %+v %v", w, err)
	}
	if len(h) != 1 {
		t.Errorf("headers left: %v", h)
	}
	for _, h := range []http.Header{{"Impersonate-Group": {"system:masters"}}, {"Impersonate-Uid": {"1"}}, {"Impersonate-Extra-X": {}}} {
		if _, err := Wanted(h); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "without impersonating a user name") {
			t.Errorf("nobody's attributes: %v", err)
		}
	}
	if w, err := Wanted(http.Header{"Accept": {"x"}}); w != nil || err != nil {
		t.Errorf("wanted out of nothing: %+v %v", w, err)
	}
}

// Who is asked for often is not asked for wrongly: the memory of modes is bounded.
func TestMemory(t *testing.T) {
	g := New(func(context.Context, authz.Attributes) (authz.Decision, string) { return authz.Allow, "" })
	for i := range maxCallers + 10 {
		g.remember(fmt.Sprint(i), 1)
	}
	if len(g.last) > maxCallers {
		t.Errorf("%d callers are remembered", len(g.last))
	}
}
