package apiserver

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/jsonpath"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write what was seen into the transcripts")

// TestCustom plays the stories about custom resources in testdata/custom against a
// server of its own each. A step is
//
//	METHOD path [until=text] [Header=value …]
//	the body, as YAML
//	? .json.path …
//	----
//	what was seen: the code, warnings, the message of a failure, and the paths
//
// "until" repeats the step until what is seen has the text. APPLY, MERGE and JSON
// are PATCH with that kind of patch.
func TestCustom(t *testing.T) {
	files, err := filepath.Glob("testdata/custom/*.txt")
	must(t, err)
	if len(files) == 0 {
		t.Fatal("no stories")
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			w := start(t)
			hook := conversionWebhook(t)
			raw, err := os.ReadFile(file)
			must(t, err)
			var out strings.Builder
			for _, block := range strings.Split(strings.TrimSpace(string(raw)), "\n\n") {
				play := &step{world: w, client: w.as("admin", "system:masters"), replace: hook}
				out.WriteString(play.run(block) + "\n\n")
				if t.Failed() {
					t.Fatal(out.String())
				}
			}
			got := strings.TrimSpace(out.String()) + "\n"
			if *update {
				must(t, os.WriteFile(file, []byte(got), 0o600))
				return
			}
			if got != string(raw) {
				t.Errorf("saw:\n%s", got)
			}
		})
	}
}

// step is one block of a story.
type step struct {
	*world
	client  *http.Client
	replace *strings.Replacer // what only the test knows: addresses, certificates
}

// run does what a block says and returns the block with what was seen.
func (s *step) run(block string) string {
	s.t.Helper()
	said, _, _ := strings.Cut(block, "\n----")
	var body, asked []string
	verb, path, until := "", "", ""
	headers := []string{}
	for line := range strings.SplitSeq(said, "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
		case verb == "":
			words := strings.Fields(line)
			verb, path = words[0], words[1]
			for _, option := range words[2:] {
				name, value, _ := strings.Cut(option, "=")
				if name == "until" {
					until = value
					continue
				}
				headers = append(headers, name, value)
			}
		case strings.HasPrefix(line, "? "):
			asked = append(asked, strings.Fields(line)[1:]...)
		default:
			body = append(body, line)
		}
	}
	if verb == "" {
		return block
	}
	seen := s.once(verb, path, strings.Join(body, "\n"), asked, headers)
	for begin := time.Now(); until != "" && !strings.Contains(seen, until); {
		if time.Since(begin) > patient {
			s.t.Errorf("%s\nnot within %v; saw last:\n%s", said, patient, seen)
			break
		}
		<-time.After(10 * time.Millisecond) // the server does it a moment later
		seen = s.once(verb, path, strings.Join(body, "\n"), asked, headers)
	}
	return said + "\n----\n" + seen
}

var patches = map[string]string{"APPLY": "application/apply-patch+yaml", "MERGE": "application/merge-patch+json", "JSON": "application/json-patch+json"}

func (s *step) once(verb, path, body string, asked, headers []string) string {
	s.t.Helper()
	text := s.replace.Replace(body)
	method, media := verb, "application/json"
	if kind, ok := patches[verb]; ok {
		method, media = "PATCH", kind
	}
	if body != "" && !strings.HasPrefix(strings.TrimSpace(body), "{{") {
		raw, err := yaml.YAMLToJSON([]byte(text))
		must(s.t, err)
		text = string(raw)
	}
	text = strings.TrimPrefix(text, "{{raw}}\n")
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(text))
	must(s.t, err)
	r.Header.Set("Content-Type", media)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	answer, err := s.client.Do(r)
	must(s.t, err)
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	must(s.t, err)
	return seen(s.t, answer, raw, asked)
}

// seen is what a transcript keeps of an answer.
func seen(t *testing.T, answer *http.Response, raw []byte, asked []string) string {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "%d", answer.StatusCode)
	for _, warning := range answer.Header.Values("Warning") {
		fmt.Fprintf(&b, "\nwarning: %s", warning)
	}
	if strings.Contains(answer.Request.URL.RawQuery, "watch=") {
		for line := range strings.SplitSeq(strings.TrimSpace(string(raw)), "\n") {
			var e struct {
				Type   string
				Object map[string]any
			}
			must(t, json.Unmarshal([]byte(line), &e))
			fmt.Fprintf(&b, "\n%s%s", e.Type, values(t, e.Object, asked))
		}
		return b.String()
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		return b.String() + "\n" + strings.TrimSpace(string(raw))
	}
	if answer.StatusCode >= 300 {
		fmt.Fprintf(&b, "\n%s", hide(refusal(raw)))
	}
	return b.String() + values(t, tree, asked)
}

// refusal is the message of a failure; several faults have no order.
func refusal(raw []byte) string {
	var status metav1.Status
	if err := json.Unmarshal(raw, &status); err != nil {
		return err.Error()
	}
	if status.Details == nil || len(status.Details.Causes) < 2 {
		return fmt.Sprintf("%s: %s", status.Reason, status.Message)
	}
	var faults []string
	for _, c := range status.Details.Causes {
		faults = append(faults, fmt.Sprintf("\n  %s: %s", c.Field, c.Message))
	}
	slices.Sort(faults)
	return string(status.Reason) + strings.Join(faults, "")
}

var (
	addresses = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	uids      = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)
)

// hide takes out what is another each time.
func hide(text string) string {
	return uids.ReplaceAllString(addresses.ReplaceAllString(text, "ADDRESS"), "UID")
}

func values(t *testing.T, tree map[string]any, asked []string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range asked {
		p := jsonpath.New(path)
		p.AllowMissingKeys(true)
		must(t, p.Parse("{"+path+"}"))
		found, err := p.FindResults(tree)
		if err != nil {
			fmt.Fprintf(&b, "\n%s: (%v)", path, err)
			continue
		}
		for _, results := range found {
			for _, r := range results {
				raw, err := json.Marshal(r.Interface())
				must(t, err)
				fmt.Fprintf(&b, "\n%s: %s", path, hide(string(raw)))
			}
		}
	}
	return b.String()
}
