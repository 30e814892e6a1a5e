package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	wire "k8s.io/kubelet/pkg/apis/credentialprovider/v1"
	"sigs.k8s.io/yaml"
)

// Limits of one run of a program.
const (
	// runTime is upstream's: enough for a program that tries a failed request again.
	runTime = time.Minute
	// lingers is how long it may leave somebody behind who holds its output.
	lingers = time.Second
	// maxOutput bounds what it prints on each of its outputs, in bytes.
	maxOutput = 1 << 20
	// maxComplaint bounds what is repeated of its complaints.
	maxComplaint = 1000
)

// run starts the program for one image.
func (p *provider) run(ctx context.Context, repository string, who caller) (*wire.CredentialProviderResponse, error) {
	question, err := json.Marshal(&wire.CredentialProviderRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: p.APIVersion, Kind: "CredentialProviderRequest"},
		Image:    repository, ServiceAccountToken: who.token, ServiceAccountAnnotations: who.annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("failed to encode auth request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	begin := time.Now()
	out, err := p.start(ctx, question)
	p.cfg.Ran(p.Name, time.Since(begin), err)
	if err != nil {
		return nil, fmt.Errorf("error execing credential provider plugin %s for image %s: %w", p.Name, repository, err)
	}
	return p.decode(out)
}

// start runs the program in a process group of its own, which ends with it.
func (p *provider) start(ctx context.Context, question []byte) ([]byte, error) {
	var out, words bounded
	c := exec.CommandContext(ctx, p.path, p.Args...)
	c.Env = os.Environ()
	for _, v := range p.Env {
		c.Env = append(c.Env, v.Name+"="+v.Value)
	}
	c.Stdin, c.Stdout, c.Stderr, c.WaitDelay = bytes.NewReader(question), &out, &words, lingers
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.Cancel = func() error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }
	err := c.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%w: %.*s", ctx.Err(), maxComplaint, words.b)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return nil, fmt.Errorf("%w: %.*s", err, maxComplaint, words.b)
	case out.over:
		return nil, fmt.Errorf("printed more than %d bytes", maxOutput)
	}
	return out.b, nil
}

// errAnswer is all that is said of an answer that can't be read: it may hold
// credentials.
var errAnswer = errors.New("error decoding credential provider plugin response from stdout")

// decode reads an answer, of the version in which was asked.
func (p *provider) decode(raw []byte) (*wire.CredentialProviderResponse, error) {
	var head metav1.TypeMeta
	if err := yaml.Unmarshal(raw, &head); err != nil {
		return nil, errAnswer
	}
	if head.APIVersion != p.APIVersion {
		return nil, fmt.Errorf("apiVersion from credential plugin response did not match expected apiVersion:%s, actual apiVersion:%s", p.APIVersion, head.APIVersion)
	}
	said := &wire.CredentialProviderResponse{}
	if err := yaml.UnmarshalStrict(raw, said); err != nil || said.Kind != "CredentialProviderResponse" {
		return nil, errAnswer
	}
	return said, nil
}

// bounded keeps the first maxOutput bytes of what is written to it.
type bounded struct {
	b    []byte
	over bool
}

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	room := min(len(p), maxOutput-len(w.b))
	w.b, w.over = append(w.b, p[:room]...), w.over || room < len(p)
	return len(p), nil
}
