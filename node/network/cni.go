package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// cniTimeout bounds one call of a whole chain of plugins unless Config says
// otherwise: a plugin that hangs fails its own pod and no other.
const cniTimeout = 2 * time.Minute

// conflist is the first network list of the configuration directory whose plugins
// are there, nil when there is none. A list without its plugins is somebody
// else's, such as the one that Debian's podman brings: it is passed over, as CRI-O
// does. The directory is read each time: a vendor's installer may bring its list
// at any moment.
func (n *Net) conflist() (*libcni.NetworkConfigList, error) {
	if n.cfg.CNIConfDir == "" {
		return nil, nil
	}
	files, err := libcni.ConfFiles(n.cfg.CNIConfDir, []string{".conflist"})
	if err != nil {
		return nil, fmt.Errorf("list CNI configurations: %w", err)
	}
	for _, f := range files { // sorted by name
		raw, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read CNI configuration: %w", err)
		}
		list, err := parseConflist(raw)
		if err != nil {
			return nil, fmt.Errorf("CNI configuration %q: %w", f, err)
		}
		if err := n.installed(list); err != nil {
			if _, told := n.passedOver.LoadOrStore(f, true); !told {
				n.log.Warn("a CNI configuration is passed over", "file", f, "network", list.Name, "err", err)
			}
			continue
		}
		n.passedOver.Delete(f)
		return list, nil
	}
	return nil, nil
}

// installed says which plugin of a list is missing.
func (n *Net) installed(list *libcni.NetworkConfigList) error {
	for _, p := range list.Plugins {
		if _, err := invoke.FindInPath(p.Network.Type, n.cfg.CNIBinDirs); err != nil {
			return err
		}
	}
	return nil
}

func parseConflist(raw []byte) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, err
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New("no plugins")
	}
	for _, p := range list.Plugins {
		if t := p.Network.Type; t == "" || t == ".." || strings.ContainsAny(t, `/\`) {
			return nil, fmt.Errorf("plugin type %q is not a plain name", t)
		}
	}
	return list, nil
}

func (n *Net) attachCNI(ctx context.Context, rec *record, list *libcni.NetworkConfigList) error {
	if err := n.save(*rec); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(n.cfg.CNITimeout, cniTimeout))
	defer cancel()
	res, err := n.libcni().AddNetworkList(ctx, list, runtimeConf(rec))
	if err != nil {
		return fmt.Errorf("CNI network %q: %w", list.Name, err)
	}
	result, err := types100.NewResultFromResult(res)
	if err != nil {
		return fmt.Errorf("CNI network %q: result: %w", list.Name, err)
	}
	for _, c := range result.IPs {
		ip, ok := netip.AddrFromSlice(c.Address.IP)
		if !ok {
			continue
		}
		if i := c.Interface; i != nil && *i >= 0 && *i < len(result.Interfaces) && result.Interfaces[*i].Sandbox == "" {
			continue // the host's side
		}
		rec.IPs = append(rec.IPs, ip.Unmap())
	}
	if len(rec.IPs) == 0 {
		return fmt.Errorf("CNI network %q gave no address", list.Name)
	}
	return n.save(*rec)
}

// detachCNI uses the list that attached the pod, whatever is configured now.
func (n *Net) detachCNI(ctx context.Context, rec record) error {
	list, err := parseConflist(rec.Conflist)
	if err != nil {
		return fmt.Errorf("recorded CNI configuration: %w", err)
	}
	if err := n.installed(list); err != nil {
		// Nobody can undo what it did; the interfaces go with the namespace. A pod
		// that could never be removed would be worse than an address that leaks.
		n.log.Warn("a CNI plugin that attached a pod is gone: what it keeps of its own stays", "network", list.Name, "err", err)
		return nil
	}
	if _, err := os.Stat(rec.NetNS); err != nil {
		rec.NetNS = "" // plugins clean up what they can
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(n.cfg.CNITimeout, cniTimeout))
	defer cancel()
	if err := n.libcni().DelNetworkList(ctx, list, runtimeConf(&rec)); err != nil {
		return fmt.Errorf("CNI network %q: %w", list.Name, err)
	}
	return nil
}

func (n *Net) libcni() *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(n.cfg.CNIBinDirs, filepath.Join(n.cfg.State, "cni"), &plugins{})
}

func runtimeConf(rec *record) *libcni.RuntimeConf {
	var ports []map[string]any
	for _, p := range rec.Ports {
		m := map[string]any{"hostPort": p.HostPort, "containerPort": p.ContainerPort, "protocol": strings.ToLower(p.Protocol)}
		if p.HostIP.IsValid() {
			m["hostIP"] = p.HostIP.String()
		}
		ports = append(ports, m)
	}
	rt := &libcni.RuntimeConf{ContainerID: rec.ID, NetNS: rec.NetNS, IfName: podInterface, Args: [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", rec.PodNamespace},
		{"K8S_POD_NAME", rec.PodName},
		{"K8S_POD_INFRA_CONTAINER_ID", rec.ID},
		{"K8S_POD_UID", rec.PodUID},
	}}
	if len(ports) > 0 {
		rt.CapabilityArgs = map[string]any{"portMappings": ports}
	}
	return rt
}
