package build

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/node/image"
)

// platform is what an image is for; the system is always linux.
type platform struct{ arch, variant string }

// String is "linux/arm/v7".
func (p platform) String() string {
	if p.variant == "" {
		return "linux/" + p.arch
	}
	return "linux/" + p.arch + "/" + p.variant
}

func (p platform) oci() ocispec.Platform {
	return ocispec.Platform{OS: "linux", Architecture: p.arch, Variant: p.variant}
}

// foreign adds to the error of a RUN what to do when its programs are another machine's.
func (p platform) foreign(err error) error {
	if p.arch == runtime.GOARCH || !strings.Contains(err.Error(), unix.ENOEXEC.Error()) {
		return err
	}
	return fmt.Errorf("%w: its programs are for %s, and this machine, of linux/%s, has no emulator for them (binfmt_misc): install one, such as qemu-user-static, or run on FROM --platform=$BUILDPLATFORM what need not be run on the other",
		err, p, runtime.GOARCH)
}

// pull is how image.TransferOptions name it.
func (p platform) pull() string { return strings.TrimPrefix(p.String(), "linux/") }

// names under which architectures are also known.
var architectures = map[string]platform{ //nolint:gochecknoglobals // a constant table
	"x86_64": {arch: "amd64"}, "x86-64": {arch: "amd64"}, "aarch64": {arch: "arm64"},
	"armhf": {arch: "arm", variant: "v7"}, "armel": {arch: "arm", variant: "v6"},
}

// parsePlatform reads "linux/amd64", "arm64" or "linux/arm/v7"; "" is this machine.
func parsePlatform(name string) (platform, error) {
	if name == "" || name == "local" {
		return platform{arch: runtime.GOARCH}, nil
	}
	parts := strings.Split(strings.ToLower(name), "/")
	if len(parts) > 1 || parts[0] == "linux" {
		if parts[0] != "linux" {
			return platform{}, fmt.Errorf("platform %q: only linux: %w", name, ErrUnsupported)
		}
		parts = parts[1:]
	}
	if len(parts) == 0 {
		return platform{arch: runtime.GOARCH}, nil
	}
	p := platform{arch: parts[0]}
	if known, ok := architectures[p.arch]; ok {
		p = known
	}
	if len(parts) == 2 && (p.arch != "arm64" || parts[1] != "v8") {
		p.variant = parts[1]
	}
	if p.arch == "arm" && p.variant == "" {
		p.variant = "v7"
	}
	if len(parts) > 2 || strings.Trim(p.arch+p.variant, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return platform{}, fmt.Errorf("platform %q: want linux/ARCHITECTURE[/VARIANT]: %w", name, image.ErrInvalid)
	}
	return p, nil
}

// platformArgs are the ARGs that every build has before its first FROM.
func platformArgs(target platform, stage string) map[string]string {
	own := platform{arch: runtime.GOARCH}
	return map[string]string{
		"TARGETPLATFORM": target.String(), "TARGETOS": "linux", "TARGETARCH": target.arch, "TARGETVARIANT": target.variant,
		"BUILDPLATFORM": own.String(), "BUILDOS": "linux", "BUILDARCH": own.arch, "BUILDVARIANT": "",
		"TARGETSTAGE": stage,
	}
}

// proxyArgs may be given without an ARG; RUN sees them, and neither the cache nor
// the image does.
var proxyArgs = []string{"HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"} //nolint:gochecknoglobals // a constant list

// isProxy says whether an ARG is one of those, in capitals or not.
func isProxy(name string) bool {
	for _, p := range proxyArgs {
		if strings.EqualFold(name, p) {
			return true
		}
	}
	return false
}

// The arguments that BuildKit gives a meaning of their own, and no ARG is needed for.
const (
	argHostname = "BUILDKIT_SANDBOX_HOSTNAME"
	argCaches   = "BUILDKIT_CACHE_MOUNT_NS"
	argChecks   = "BUILDKIT_DOCKERFILE_CHECK"
	argInline   = "BUILDKIT_INLINE_CACHE"
	argIndex    = "BUILDKIT_MULTI_PLATFORM"
)

// builtin does what those arguments say that are options by another name.
func (o *Options) builtin() {
	inline := func(p CachePlace) bool { return p.Ref == "" && p.Dir == "" }
	if yes(o.Args[argInline]) && !slices.ContainsFunc(o.CacheTo, inline) {
		o.CacheTo = append(slices.Clone(o.CacheTo), CachePlace{})
	}
}

// index says whether even one platform makes an index.
func (o *Options) index() bool { return o.attests() || yes(o.Args[argIndex]) }

func yes(text string) bool {
	is, err := strconv.ParseBool(text)
	return err == nil && is
}

// epochArg takes SOURCE_DATE_EPOCH from the build arguments.
func (o *Options) epochArg() error {
	text, ok := o.Args[argEpoch]
	if !ok || text == "" || o.Epoch != nil {
		return nil
	}
	return o.setEpoch(text)
}

// fileEpoch takes it from an ARG before the first FROM, unless somebody has said another,
// or with an empty argument that there is none.
func (o *Options) fileEpoch(file dockerfile) error {
	if _, said := o.Args[argEpoch]; said || o.Epoch != nil {
		return nil
	}
	text := file.defaults()[argEpoch]
	if text == "" {
		return nil
	}
	return o.setEpoch(text)
}

// argEpoch is the argument by which builds are made reproducible (reproducible-builds.org).
const argEpoch = "SOURCE_DATE_EPOCH"

func (o *Options) setEpoch(text string) error {
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return fmt.Errorf("%s=%q: want seconds since 1970: %w", argEpoch, text, image.ErrInvalid)
	}
	at := time.Unix(seconds, 0).UTC()
	o.Epoch = &at
	return nil
}
