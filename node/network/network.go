// Package network gives a pod its interface: a veth pair from the pod's network
// namespace to one bridge, an address out of the node's pod CIDR, a route to
// everywhere, and the translations (masquerade, host ports) in an nftables
// table of its own. Everything is done by netlink; no program is executed,
// except the plugins of a CNI network list, which takes over when one is
// configured.
//
// Pods hold single addresses (/32, /128) and reach each other through the
// bridge's own address. So every packet between two pods is routed, and a
// translated flow's answers come back through the same connection tracking
// whether or not the kernel shows bridged packets to the firewall
// (net.bridge.bridge-nf-call-iptables).
//
// The state directory holds one file an address and one an attachment. It is
// the truth: after a restart, Reconcile compares it with what lives.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sampan-dev/sampan/internal/atomicfile"
	"github.com/sampan-dev/sampan/internal/keylock"
)

// Limits.
const (
	// MaxPorts bounds the host ports of one pod.
	MaxPorts = 1024
	// MaxPodCIDRs is one for each address family.
	MaxPodCIDRs = 2
)

// ErrNoPodCIDR says that nobody has told this node yet which addresses are its
// own.
var ErrNoPodCIDR = errors.New("no pod CIDR is assigned to this node yet")

// Config says where a Net works and what it may touch.
type Config struct {
	// State is the directory of the durable records; it is made with mode 0700.
	State string
	// Bridge is the bridge's interface name; "sampan0" when empty.
	Bridge string
	// Table is the name of the nftables tables (one an address family);
	// "sampan-net" when empty.
	Table string
	// NetNS is the path of the network namespace that holds the bridge; empty
	// means that of the calling thread.
	NetNS string
	// MTU of the pods' interfaces; 0 takes that of the interface with the
	// default route, and 1500 where there is none.
	MTU int
	// Direct are further prefixes that pods reach under their own address:
	// the cluster's whole pod range when it has more than one node.
	Direct []netip.Prefix
	// Local are addresses that the node itself answers at, on the bridge: that of
	// the cluster's DNS service, so that each node serves its own pods.
	Local []netip.Addr
	// Forwarding switches on IP forwarding in NetNS. It is a setting of the
	// whole host, so it is off unless asked for; pods reach nothing but the
	// node without it.
	Forwarding bool
	// CNIConfDir is looked at on each attachment: the first network list in it
	// whose plugins are installed takes the place of the bridge. Empty turns CNI
	// off.
	CNIConfDir string
	// CNIBinDirs are where the plugins of such a list are.
	CNIBinDirs []string
	// CNITimeout bounds one call of a whole list; 0 means two minutes.
	CNITimeout time.Duration
	// Log receives what nobody else is told; nil is silence.
	Log *slog.Logger
}

// PortMapping forwards a port of the node to a port of the pod.
type PortMapping struct {
	// Protocol is "tcp", "udp" or "sctp".
	Protocol string `json:"protocol"`
	// ContainerPort is where the pod listens.
	ContainerPort uint16 `json:"containerPort"`
	// HostPort is where the node receives.
	HostPort uint16 `json:"hostPort"`
	// HostIP limits the mapping to one of the node's addresses; the zero value
	// and the unspecified address mean all of them, except ::1.
	HostIP netip.Addr `json:"hostIP,omitzero"`
}

// Attachment is one pod's place in the network.
type Attachment struct {
	// ID names the sandbox; letters, digits, '.', '_' and '-'.
	ID string `json:"id"`
	// NetNS is the path of the pod's network namespace.
	NetNS string `json:"netns"`
	// PodNamespace, PodName and PodUID are for CNI plugins and for people.
	PodNamespace string `json:"podNamespace,omitempty"`
	PodName      string `json:"podName,omitempty"`
	PodUID       string `json:"podUID,omitempty"`
	// Hostname and Labels are the pod's, for whoever stands before this network.
	Hostname string            `json:"-"`
	Labels   map[string]string `json:"-"`
	// Ports are the host ports that lead here.
	Ports []PortMapping `json:"ports,omitempty"`
}

// Result is what an attachment got.
type Result struct {
	// IPs are the pod's addresses, IPv4 first.
	IPs []netip.Addr
}

// Net is a node's pod network. Its methods may be called concurrently.
type Net struct {
	cfg  Config
	log  *slog.Logger
	host netns.NsHandle  // where the bridge is
	nl   *netlink.Handle // opened there
	raw  sockets         // for what it has no words for
	nat  *nat

	mu       sync.Mutex // guards pools, mtu and the making of the bridge
	pools    []*pool
	mtu      int
	bridge   int           // interface index, 0 while there is none
	ids      keylock.Locks // serialises what happens to one attachment
	leaving  sync.WaitGroup
	goodbyes goodbyes
	recordIn string
	// passedOver are CNI configurations that the log has told of.
	passedOver sync.Map
}

// Open reads the state directory. It changes nothing in the kernel:
// SetPodCIDR does.
func Open(cfg Config) (*Net, error) {
	if cfg.Bridge == "" {
		cfg.Bridge = "sampan0"
	}
	if cfg.Table == "" {
		cfg.Table = "sampan-net"
	}
	if len(cfg.Bridge) >= unix.IFNAMSIZ {
		return nil, fmt.Errorf("bridge name %q is longer than %d bytes", cfg.Bridge, unix.IFNAMSIZ-1)
	}
	n := &Net{cfg: cfg, log: cfg.Log, recordIn: filepath.Join(cfg.State, "attachments")}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{cfg.State, n.recordIn} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make network state: %w", err)
		}
	}
	if err := atomicfile.Clean(n.recordIn); err != nil {
		return nil, fmt.Errorf("clean network state: %w", err)
	}
	var err error
	if cfg.NetNS == "" {
		n.host, err = netns.Get()
	} else {
		n.host, err = netns.GetFromPath(cfg.NetNS)
	}
	if err != nil {
		return nil, fmt.Errorf("open host network namespace %q: %w", cfg.NetNS, err)
	}
	if n.nl, err = netlink.NewHandleAt(n.host, unix.NETLINK_ROUTE); err != nil {
		n.host.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if n.raw, err = openRaw(n.host); err == nil {
		n.goodbyes.socket, err = openRaw(n.host)
	}
	if err != nil {
		n.raw.close()
		n.nl.Close()
		n.host.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	if n.nat, err = openNAT(cfg.Table, cfg.Bridge, int(n.host)); err != nil {
		n.raw.close()
		n.goodbyes.socket.close()
		n.nl.Close()
		n.host.Close()
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return n, nil
}

// Close finishes the detachments under way and lets go of the kernel's handles.
// The network itself stays.
func (n *Net) Close() error {
	n.leaving.Wait()
	err := n.nat.close()
	n.raw.close()
	n.goodbyes.socket.close()
	n.nl.Close()
	return errors.Join(err, n.host.Close())
}

// SetPodCIDR says which addresses this node's pods get: at most one prefix of
// each family. It makes the bridge and the tables, or repairs them. Pods that
// are attached already keep their addresses.
func (n *Net) SetPodCIDR(prefixes ...netip.Prefix) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.same(prefixes) && n.intact() {
		return nil
	}
	pools, err := openPools(filepath.Join(n.cfg.State, "addresses"), prefixes)
	if err != nil {
		return err
	}
	n.pools = pools
	return n.ensure()
}

// Attach connects a pod. On failure nothing of it is left. Attaching an ID that
// is attached already connects it anew.
func (n *Net) Attach(ctx context.Context, a Attachment) (Result, error) {
	if err := checkAttachment(a); err != nil {
		return Result{}, err
	}
	defer n.ids.Lock(a.ID)()
	if err := n.detach(ctx, a); err != nil {
		return Result{}, fmt.Errorf("clear the way for sandbox %q: %w", a.ID, err)
	}
	list, err := n.conflist()
	if err != nil {
		return Result{}, err
	}
	rec := record{Attachment: a}
	if list != nil {
		rec.Conflist = list.Bytes
		err = n.attachCNI(ctx, &rec, list)
	} else {
		err = n.attachBridge(&rec)
	}
	if err != nil {
		undo := n.detachRecord(context.WithoutCancel(ctx), rec)
		return Result{}, errors.Join(fmt.Errorf("attach sandbox %q: %w", a.ID, err), undo)
	}
	return Result{IPs: rec.IPs}, nil
}

var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

func checkAttachment(a Attachment) error {
	if !validID.MatchString(a.ID) {
		return fmt.Errorf("sandbox id %q is not a plain name", a.ID)
	}
	if a.NetNS == "" {
		return fmt.Errorf("sandbox %q has no network namespace", a.ID)
	}
	if len(a.Ports) > MaxPorts {
		return fmt.Errorf("sandbox %q has %d host ports, more than %d", a.ID, len(a.Ports), MaxPorts)
	}
	for _, p := range a.Ports {
		if _, err := protocolNumber(p.Protocol); err != nil {
			return fmt.Errorf("sandbox %q: %w", a.ID, err)
		}
		if p.HostPort == 0 || p.ContainerPort == 0 {
			return fmt.Errorf("sandbox %q: port mapping %+v names port 0", a.ID, p)
		}
	}
	return nil
}
