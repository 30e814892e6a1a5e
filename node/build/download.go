package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	digest "github.com/opencontainers/go-digest"

	"github.com/sampan-dev/sampan/node/image"
)

// Limits of fetching what an ADD names.
const (
	downloadDial   = 10 * time.Second
	downloadAnswer = 30 * time.Second
	// downloadWhole bounds a download as a whole.
	downloadWhole = 30 * time.Minute
	maxRedirects  = 10
)

// downloaded is a file that an ADD has fetched, in a directory of its own.
type downloaded struct {
	url, name string
	source    source
	work      *workDir
	root      *os.Root
}

func (d *downloaded) close() error { return errors.Join(d.root.Close(), d.work.close()) }

// isURL says whether a source of ADD is fetched.
func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

// isGit says whether a source of ADD is a git repository, by BuildKit's rules.
func isGit(s string) bool {
	if strings.HasPrefix(s, "git@") || strings.HasPrefix(s, "git://") || strings.HasPrefix(s, "ssh://") {
		return true
	}
	if !isURL(s) {
		return false
	}
	u, err := url.Parse(s)
	return err == nil && strings.HasSuffix(u.Path, ".git")
}

// download fetches a URL; a checksum that is given must be the content's.
func (b *builder) download(ctx context.Context, from, checksum string) (_ *downloaded, err error) {
	var want digest.Digest
	if checksum != "" {
		if want, err = digest.Parse(checksum); err != nil {
			return nil, fmt.Errorf("--checksum=%s: %w: %w", checksum, image.ErrInvalid, err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, downloadWhole, fmt.Errorf("took more than %s", downloadWhole))
	defer cancel()
	access, err := b.httpAccess(from)
	if err != nil {
		return nil, err
	}
	answer, err := get(ctx, from, access)
	if err != nil {
		return nil, fmt.Errorf("ADD %s: %w", from, err)
	}
	defer answer.Body.Close()
	work, err := newWorkDir(b.opts.Cache, addDirs)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(work.path)
	if err != nil {
		return nil, errors.Join(err, work.close())
	}
	d := &downloaded{url: from, work: work, root: root, name: fileName(answer)}
	got, err := d.keep(answer)
	if err == nil && want != "" {
		got, err = d.verify(want)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("ADD %s: %w", from, err), d.close())
	}
	b.used(from, got)
	return d, nil
}

// get asks for a URL, with an Authorization header unless it is "".
func get(ctx context.Context, from, access string) (*http.Response, error) {
	client := &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: downloadDial}).DialContext,
			TLSHandshakeTimeout: downloadDial, ResponseHeaderTimeout: downloadAnswer, DisableKeepAlives: true,
		},
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) >= maxRedirects {
				return fmt.Errorf("%d redirects: %w", len(via), image.ErrInvalid)
			}
			return nil
		},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sampan")
	if access != "" {
		req.Header.Set("Authorization", access)
	}
	answer, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("the server answers %s: %w", answer.Status, image.ErrNotFound)
	}
	return answer, nil
}

// Download fetches a URL as an ADD does: with the same times to connect, to answer and in
// all, and at most MaxDownload bytes, beyond which reading it is an error. Whoever calls
// closes it.
func Download(ctx context.Context, from string) (io.ReadCloser, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, downloadWhole, fmt.Errorf("took more than %s", downloadWhole))
	answer, err := get(ctx, from, "") //nolint:bodyclose // what is given back closes it
	if err != nil {
		cancel()
		return nil, err
	}
	return &bounded{body: answer.Body, left: MaxDownload, cancel: cancel, ctx: ctx}, nil
}

// bounded reads a body of so many bytes at most.
type bounded struct {
	body   io.ReadCloser
	left   int64
	cancel context.CancelFunc
	ctx    context.Context //nolint:containedctx // its cause says why reading has ended
}

// Read reads on; after the last byte that may come it looks whether there is another.
func (b *bounded) Read(p []byte) (int, error) {
	p = p[:min(int64(len(p)), b.left+1)]
	n, err := b.body.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n - 1, fmt.Errorf("more than %d bytes: %w", int64(MaxDownload), image.ErrInvalid)
	}
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

// Close ends the request.
func (b *bounded) Close() error {
	b.cancel()
	return b.body.Close()
}

// fileName is what a download is called in a directory: the last part of the
// path that was asked for in the end.
func fileName(answer *http.Response) string {
	base := path.Base(answer.Request.URL.Path)
	if base == "/" || base == "." || base == ".." {
		return ""
	}
	return base
}

// keep writes the body to a file, with the time that the server gives it.
func (d *downloaded) keep(answer *http.Response) (digest.Digest, error) {
	f, err := d.root.OpenFile("content", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := digest.SHA256.Digester()
	n, err := io.Copy(io.MultiWriter(f, hash.Hash()), io.LimitReader(answer.Body, MaxDownload+1))
	if err != nil {
		return "", err
	}
	if n > MaxDownload {
		return "", fmt.Errorf("more than %d bytes: %w", int64(MaxDownload), image.ErrTooLarge)
	}
	modified := time.Unix(0, 0)
	if at, err := http.ParseTime(answer.Header.Get("Last-Modified")); err == nil {
		modified = at
	}
	if err := os.Chtimes(filepath.Join(d.work.path, "content"), modified, modified); err != nil {
		return "", err
	}
	info, err := d.root.Lstat("content")
	d.source = source{tree: &tree{Root: d.root, name: d.url}, path: "content", info: info}
	return hash.Digest(), err
}

// verify compares with a checksum of whatever algorithm.
func (d *downloaded) verify(want digest.Digest) (digest.Digest, error) {
	f, err := d.root.Open("content")
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := want.Algorithm().Digester()
	if _, err := io.Copy(hash.Hash(), f); err != nil {
		return "", err
	}
	if got := hash.Digest(); got != want {
		return "", fmt.Errorf("content has checksum %s, --checksum wants %s: %w", got, want, image.ErrInvalid)
	}
	return want, nil
}
