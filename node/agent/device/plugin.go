package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	utilvalidation "k8s.io/apimachinery/pkg/util/validation"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"github.com/sampan-dev/sampan/node/agent/socket"
	"github.com/sampan-dev/sampan/node/agent/spec"

	corev1 "k8s.io/api/core/v1"
)

// Limits of talking to plugins.
const (
	dialTimeout     = 10 * time.Second
	callTimeout     = 30 * time.Second
	maxMessage      = 16 << 20
	preStartTimeout = pluginapi.KubeletPreStartContainerRPCTimeoutInSecs * time.Second
)

// plugin is a connection to one device plugin.
type plugin struct {
	resource, endpoint string
	options            *pluginapi.DevicePluginOptions
	conn               *grpc.ClientConn
	client             pluginapi.DevicePluginClient
	// devices are those of its last list, nil before one.
	devices map[string]*pluginapi.Device
}

// Run serves registrations until ctx ends. It fails when it can't begin.
func (d *Devices) Run(ctx context.Context) error {
	if err := os.MkdirAll(d.cfg.Dir, 0o750); err != nil {
		return fmt.Errorf("device plugins: %w", err)
	}
	if err := d.clean(); err != nil {
		return fmt.Errorf("device plugins: %w", err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	pluginapi.RegisterRegistrationServer(server, &registration{d: d, ctx: ctx})
	forgetting, stop := context.WithCancel(ctx)
	defer stop()
	go d.forget(forgetting)
	if err := socket.Serve(ctx, filepath.Join(d.cfg.Dir, Socket), server); err != nil {
		return fmt.Errorf("device plugins: %w", err)
	}
	return nil
}

// clean removes the sockets of before, by which plugins see that they must
// register again.
func (d *Devices) clean() error {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if e.Type()&os.ModeSocket != 0 {
			failed = append(failed, os.Remove(filepath.Join(d.cfg.Dir, e.Name())))
		}
	}
	return errors.Join(failed...)
}

// registration is the service that plugins register at.
type registration struct {
	pluginapi.UnimplementedRegistrationServer

	d   *Devices
	ctx context.Context //nolint:containedctx // the life of connections, which outlive their registration's call
}

// Register implements pluginapi.RegistrationServer. It answers when the plugin has: one
// that doesn't say what its options are is refused, as upstream has it.
func (r *registration) Register(_ context.Context, q *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	r.d.cfg.Counts.PluginRegistered(q.GetResourceName())
	endpoint := q.GetEndpoint()
	if endpoint != filepath.Base(endpoint) || endpoint == "" || strings.HasPrefix(endpoint, ".") {
		return nil, fmt.Errorf("endpoint %q is no name of a socket in %s", endpoint, r.d.cfg.Dir)
	}
	if err := Validate(q.GetResourceName(), []string{q.GetVersion()}); err != nil {
		r.d.cfg.Log.Error("a device plugin can't register", "endpoint", endpoint, "err", err)
		return nil, err
	}
	p, err := r.d.meet(r.ctx, q.GetResourceName(), filepath.Join(r.d.cfg.Dir, endpoint), q.GetOptions())
	if err != nil {
		r.d.cfg.Log.Error("a device plugin can't register", "endpoint", endpoint, "err", err)
		return nil, err
	}
	go func() {
		if err := r.d.follow(r.ctx, p); err != nil && r.ctx.Err() == nil {
			r.d.cfg.Log.Error("a device plugin is lost", "resource", q.GetResourceName(), "endpoint", endpoint, "err", err)
		}
	}()
	return &pluginapi.Empty{}, nil
}

// Validate says why a plugin for a resource that speaks these versions can't be
// had.
func Validate(resource string, versions []string) error {
	speaks := false
	for _, v := range versions {
		speaks = speaks || v == pluginapi.Version
	}
	if !speaks {
		return fmt.Errorf("requested API version %q is not supported by kubelet. Supported version is %q", strings.Join(versions, ","), pluginapi.Version)
	}
	if !spec.Extended(corev1.ResourceName(resource)) || len(utilvalidation.IsQualifiedName(resource)) > 0 {
		return fmt.Errorf("the ResourceName %q is invalid", resource)
	}
	return nil
}

// Connect talks to a plugin until it goes or ctx ends. A plugin that comes for
// the same resource takes its place.
func (d *Devices) Connect(ctx context.Context, resource, socket string, options *pluginapi.DevicePluginOptions) error {
	p, err := d.meet(ctx, resource, socket, options)
	if err != nil {
		return err
	}
	return d.follow(ctx, p)
}

// meet connects to a plugin, and asks for its options if they are nil.
func (d *Devices) meet(ctx context.Context, resource, socket string, options *pluginapi.DevicePluginOptions) (*plugin, error) {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("dial %q: %w", socket, err)
	}
	p := &plugin{resource: resource, endpoint: socket, options: options, conn: conn, client: pluginapi.NewDevicePluginClient(conn)}
	if options == nil {
		asked, cancel := context.WithTimeout(ctx, dialTimeout)
		p.options, err = p.client.GetDevicePluginOptions(asked, &pluginapi.Empty{}, grpc.WaitForReady(true))
		cancel()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("failed to get device plugin options: %w", err), conn.Close())
		}
	}
	return p, nil
}

// follow hears from a plugin which devices it has until it goes or ctx ends.
func (d *Devices) follow(ctx context.Context, p *plugin) error {
	defer func() { _ = p.conn.Close() }() // a newer plugin may have closed it
	stream, err := p.client.ListAndWatch(ctx, &pluginapi.Empty{}, grpc.WaitForReady(true))
	if err != nil {
		return fmt.Errorf("list devices of %q: %w", p.resource, err)
	}
	d.adopt(p)
	defer d.lost(p)
	for {
		list, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("list devices of %q: %w", p.resource, err)
		}
		if err := d.update(p, list.GetDevices()); err != nil {
			return err
		}
	}
}

// adopt makes p the resource's plugin. One that was there is kept behind it, unless p is
// that one, started anew.
func (d *Devices) adopt(p *plugin) {
	d.mu.Lock()
	defer d.mu.Unlock()
	k := d.resources[p.resource]
	if k == nil {
		k = &kind{devices: map[string]*pluginapi.Device{}}
		d.resources[p.resource] = k
	}
	for _, o := range append(slices.Clone(k.older), k.plugin) {
		if o != nil && o.endpoint == p.endpoint {
			_ = o.conn.Close() // whoever reads its list sees it
		}
	}
	if k.plugin != nil && k.plugin.endpoint != p.endpoint {
		k.older = append(k.older, k.plugin)
	}
	k.older = slices.DeleteFunc(k.older, func(o *plugin) bool { return o.endpoint == p.endpoint })
	k.plugin = p
	d.cfg.Log.Info("a device plugin has come", "resource", p.resource, "endpoint", p.endpoint)
}
