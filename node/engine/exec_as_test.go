package engine

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	clientexec "k8s.io/client-go/util/exec"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// as runs a command with something of its own in a container, and gives what it
// prints and its exit code.
func (n *node) as(id string, as cri.As, args ...string) (string, int) {
	n.t.Helper()
	r, err := cri.ExecAs(n.t.Context(), n.engine, &rt.ExecRequest{ContainerId: id, Cmd: append([]string{"/probe"}, args...), Stdout: true, Stderr: true}, as)
	n.must(err)
	at, err := url.Parse(r.GetUrl())
	n.must(err)
	remote, err := remotecommand.NewSPDYExecutor(&rest.Config{}, http.MethodPost, at)
	n.must(err)
	var out, errOut bytes.Buffer
	err = remote.StreamWithContext(n.t.Context(), remotecommand.StreamOptions{Stdout: &out, Stderr: &errOut})
	var exit clientexec.ExitError
	if !errors.As(err, &exit) {
		n.must(err)
		return strings.TrimSpace(out.String()), 0
	}
	return strings.TrimSpace(out.String() + errOut.String()), exit.ExitStatus()
}

// A command may be somebody else in a container, whom the container itself knows by
// now, without being more than the container may be; and it may start elsewhere,
// with other variables. What nobody asks for is the container's.
func TestExecAs(t *testing.T) {
	n := newNode(t)
	n.must(n.addImage("exam.test/users:1", built.layer, n.layer(map[string]string{
		"etc/passwd": "root:x:0:0::/root:\nbob:x:1001:1002::/home/bob:\n", "etc/group": "wheel:x:50:bob\n", "home/bob/file": ""})))
	pod := podConfig("users")
	s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	main := containerConfig("wait")
	main.Image.Image = "exam.test/users:1"
	main.Linux.SecurityContext.RunAsUser, main.Linux.SecurityContext.SupplementalGroups = &rt.Int64Value{Value: 0}, []int64{77}
	main.Linux.SecurityContext.Capabilities = &rt.Capability{DropCapabilities: []string{"ALL"}, AddCapabilities: []string{"CHOWN"}}
	c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: main, SandboxConfig: pod})
	n.must(err)
	id := c.ContainerId
	_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: id})
	n.must(err)
	if out, code := n.as(id, cri.As{User: "carol"}, "id"); code != 126 || !strings.Contains(out, `user "carol" is not in`) {
		t.Errorf("an unknown user: %q, exit code %d", out, code)
	}
	if _, err := n.engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "write", "/etc/passwd",
		"root:x:0:0::/root:\nbob:x:1001:1002::/home/bob:\ncarol:x:2001:2002::/home/carol:\n"}}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		as   cri.As
		args []string
		want string
	}{
		{cri.As{}, []string{"id", "then", "cwd", "then", "env", "HOME"}, "0 0 [0 77]\n/work\n/root"},
		{cri.As{User: "bob"}, []string{"id", "then", "env", "HOME", "then", "status", "CapEff"}, "1001 1002 [50 77 1002]\n/home/bob\n0000000000000000"},
		{cri.As{User: "carol"}, []string{"id"}, "2001 2002 [77 2002]"},
		{cri.As{User: "5:wheel"}, []string{"id", "then", "env", "HOME"}, "5 50 [50 77]\n/"},
		{cri.As{User: "0"}, []string{"status", "CapEff"}, "0000000000000001"},
		{cri.As{Cwd: "/home/bob"}, []string{"cwd"}, "/home/bob"},
		{cri.As{User: "bob", Env: []string{"FROM=us", "HOME=/x", "NEW=a=b"}}, []string{"env", "FROM", "then", "env", "HOME", "then", "env", "NEW"}, "us\n/x\na=b"},
	} {
		if out, code := n.as(id, c.as, c.args...); out != c.want || code != 0 {
			t.Errorf("%+v %q: %q, exit code %d; want %q", c.as, c.args, out, code, c.want)
		}
	}
	if out, code := n.as(id, cri.As{Cwd: "/none"}, "cwd"); code == 0 || !strings.Contains(out, "/none") {
		t.Errorf("in no directory: %q, exit code %d", out, code)
	}
	if _, err := n.engine.ExecAs(t.Context(), &rt.ExecRequest{ContainerId: id, Cmd: []string{"/probe"}, Stdout: true}, cri.As{Cwd: "relative"}); !cri.IsInvalid(err) {
		t.Errorf("a relative directory: %v", err)
	}
}
