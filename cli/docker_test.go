package cli

import (
	"io"
	"strings"
	"testing"
)

// Docker's words lead to sampan's verbs, or to what does the same.
func TestDockerWords(t *testing.T) {
	root := New(Program{})
	for words, want := range map[string]string{
		"image ls": "ls", "image rm x": "rm", "container ls": "ls", "container list": "ls", "container run x": "run", "container diff x": "diff",
		"builder prune": "prune", "buildx build .": "build", "system prune": "prune",
	} {
		if cmd, _, err := root.Find(strings.Fields(words)); err != nil || cmd.Name() != want {
			t.Errorf("%s is %v, %v", words, cmd.CommandPath(), err)
		}
	}
	for words, want := range map[string]string{
		"volume ls": "there is no sampan volume: named volumes", "update --memory 64m web": "--subresource resize", "image sign x": "there is no sampan image sign",
		"exec -d web sleep 5": "sh -c 'sleep 5 >/dev/null 2>&1 &'",
	} {
		root := New(Program{})
		root.SetArgs(strings.Fields(words))
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.Execute(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", words, err)
		}
	}
	// What is there is not said to be absent.
	for _, cmd := range New(Program{}).Commands() {
		if absent[cmd.Name()] != "" && !cmd.DisableFlagParsing {
			t.Errorf("%s is both", cmd.Name())
		}
	}
}
