package device

import (
	"context"
	"slices"

	registry "github.com/sampan-dev/sampan/node/agent/plugin"
)

// Handler takes device plugins that register by a socket of their own (package
// plugin) rather than at ours. ctx is the life of connections.
func (d *Devices) Handler(ctx context.Context) registry.Handler { return handler{d, ctx} }

type handler struct {
	d   *Devices
	ctx context.Context //nolint:containedctx // the life of connections, which outlive their registration
}

// Register implements registry.Handler. The plugin's name is the resource's.
func (h handler) Register(_ context.Context, info registry.Info) error {
	if err := Validate(info.Name, info.Versions); err != nil {
		return err
	}
	go func() {
		if err := h.d.Connect(h.ctx, info.Name, info.Endpoint, nil); err != nil && h.ctx.Err() == nil {
			h.d.cfg.Log.Error("a device plugin is lost", "resource", info.Name, "endpoint", info.Endpoint, "err", err)
		}
	}()
	return nil
}

// Deregister implements registry.Handler.
func (h handler) Deregister(info registry.Info) {
	h.d.mu.Lock()
	defer h.d.mu.Unlock()
	k := h.d.resources[info.Name]
	if k == nil {
		return
	}
	for _, p := range append(slices.Clone(k.older), k.plugin) {
		if p != nil && p.endpoint == info.Endpoint {
			_ = p.conn.Close() // whoever reads its list sees it
		}
	}
}
