package critest

import (
	_ "embed"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

//go:embed CONTRACT.md
var contractText string

// row is a line of a table in CONTRACT.md.
type row struct {
	line    string
	where   []string
	parts   []string
	because string
}

var quoted = regexp.MustCompile("`([^`]+)`")

// rows reads the tables. "A.b, c" is about A.b and A.c; "A.*" about all fields of A.
func rows(t *testing.T) []row {
	t.Helper()
	var out []row
	for line := range strings.Lines(contractText) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "| ") || len(cells) != 3 || strings.TrimSpace(cells[0]) == "where" {
			continue
		}
		r := row{line: strings.TrimSpace(line)}
		message := ""
		for name := range strings.SplitSeq(strings.TrimSpace(cells[0]), ", ") {
			if before, _, found := strings.Cut(name, "."); found {
				message = before
			} else if message != "" {
				name = message + "." + name
			}
			r.where = append(r.where, name)
		}
		proof := strings.TrimSpace(cells[2])
		why, without := strings.CutPrefix(proof, "not asked: ")
		if without {
			r.because = why
		} else {
			for _, m := range quoted.FindAllStringSubmatch(proof, -1) {
				r.parts = append(r.parts, m[1])
			}
		}
		if r.because == "" && len(r.parts) == 0 {
			t.Errorf("neither a part nor a reason: %s", r.line)
		}
		out = append(out, r)
	}
	return out
}

func contract() protoreflect.FileDescriptor {
	return (&rt.VersionRequest{}).ProtoReflect().Descriptor().ParentFile()
}

// promised are all names that rows can be about: calls, fields, enumerations.
func promised() []string {
	var out []string
	file := contract()
	for i := range file.Services().Len() {
		s := file.Services().Get(i)
		for j := range s.Methods().Len() {
			out = append(out, string(s.Name())+"."+string(s.Methods().Get(j).Name()))
		}
	}
	for i := range file.Enums().Len() {
		out = append(out, string(file.Enums().Get(i).Name()))
	}
	for i := range file.Messages().Len() {
		out = append(out, fields(file.Messages().Get(i))...)
	}
	return out
}

func fields(m protoreflect.MessageDescriptor) []string {
	var out []string
	for i := range m.Fields().Len() {
		out = append(out, string(m.Name())+"."+string(m.Fields().Get(i).Name()))
	}
	for i := range m.Enums().Len() {
		out = append(out, string(m.Name())+"."+string(m.Enums().Get(i).Name()))
	}
	return out
}

// empty are the messages without a field, of which a row may speak all the same.
func empty(message string) bool {
	m := contract().Messages().ByName(protoreflect.Name(message))
	return m != nil && m.Fields().Len() == 0
}

// The table has a row for everything that the contract has, and for nothing else; its
// parts are those of the exam, and none of those is without a reason to be there.
func TestContractIsCovered(t *testing.T) {
	var known []string
	for _, p := range parts() {
		if slices.Contains(known, p.name) {
			t.Errorf("two parts are called %q", p.name)
		}
		known = append(known, p.name)
	}
	open := map[string]bool{}
	for _, name := range promised() {
		open[name] = true
	}
	if len(open) < 400 {
		t.Fatalf("the contract has %d calls, fields and enumerations, which cannot be all", len(open))
	}
	idle := slices.Clone(known)
	for _, r := range rows(t) {
		for _, part := range r.parts {
			if !slices.Contains(known, part) {
				t.Errorf("the exam has no part %q: %s", part, r.line)
			}
			idle = slices.DeleteFunc(idle, func(name string) bool { return name == part })
		}
		for _, where := range r.where {
			if where != "-" && !settle(open, where) {
				t.Errorf("the contract has no %s, or another row has it: %s", where, r.line)
			}
		}
	}
	for name, is := range open {
		if is {
			t.Errorf("no row is about %s", name)
		}
	}
	for _, name := range idle {
		t.Errorf("no row wants the part %q", name)
	}
}

// settle marks what a row is about, and tells whether there was anything.
func settle(open map[string]bool, where string) bool {
	message, all := strings.CutSuffix(where, ".*")
	if !all {
		was := open[where]
		open[where] = false
		return was
	}
	any := false
	for name, is := range open {
		if is && strings.HasPrefix(name, message+".") {
			open[name], any = false, true
		}
	}
	return any || empty(message)
}
