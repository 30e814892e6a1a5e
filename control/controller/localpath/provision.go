package localpath

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/control/controller"
)

// The annotations that binder, scheduler and provisioners share.
const (
	provisionedBy   = "pv.kubernetes.io/provisioned-by"
	selectedNode    = "volume.kubernetes.io/selected-node"
	provisioner     = "volume.kubernetes.io/storage-provisioner"
	betaProvisioner = "volume.beta.kubernetes.io/storage-provisioner"
	betaClass       = "volume.beta.kubernetes.io/storage-class"
)

// wanted says whether the binder waits for us to make a claim's volume.
func wanted(p *claim) bool {
	by, ok := p.Annotations[provisioner]
	if !ok {
		by = p.Annotations[betaProvisioner]
	}
	return by == Provisioner && p.Spec.VolumeName == "" && p.DeletionTimestamp == nil
}

// nameOf is the name of a claim's volume, and of its directory: upstream's, of the
// server's making and not of the claim's author.
func nameOf(p *claim) string { return "pvc-" + string(p.UID) }

// errNode is why a volume can't be made on the node that was chosen: another may do.
var errNode = errors.New("not on this node")

// provision makes a claim's volume. It is the binder that binds it.
func (c *Controller) provision(ctx context.Context, p *claim) error {
	if _, ok := c.volumes.Get("", nameOf(p)); ok {
		return nil
	}
	class, ok := c.classes.Get("", classOf(p))
	if !ok || class.Provisioner != Provisioner {
		return nil // a class that comes brings the claim back
	}
	if p.Annotations[selectedNode] == "" && delayed(class) {
		return nil // the scheduler chooses anew
	}
	node, err := c.chosen(ctx, p.Annotations[selectedNode])
	if err != nil {
		return err
	}
	v, err := plan(p, class, node)
	if err != nil {
		c.events.Eventf(p, corev1.EventTypeWarning, "ProvisioningFailed", "failed to provision volume with StorageClass %q: %v", class.Name, err)
		if errors.Is(err, errNode) {
			return c.elsewhere(ctx, p)
		}
		return nil // nothing but another claim or class would help
	}
	c.events.Eventf(p, corev1.EventTypeNormal, "Provisioning", "External provisioner is provisioning volume for claim %q", controller.KeyOf(p).String())
	if _, err := client.PersistentVolumes.Create(ctx, c.transport, v); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make volume of claim %s: %w", controller.KeyOf(p), err)
	}
	c.events.Eventf(p, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", v.Name)
	return nil
}

// chosen is a claim's node; nil when there is none. A node that the mirror doesn't
// know yet, or not as one that makes directories, is asked for.
func (c *Controller) chosen(ctx context.Context, name string) (*corev1.Node, error) {
	if node, ok := c.nodes.Get("", name); name == "" || ok && node.Annotations[annDirectory] != "" {
		return node, nil
	}
	node, err := client.Nodes.Get(ctx, c.transport, "", name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get node %q: %w", name, err)
	}
	return node, nil
}

// delayed says whether a class's claims wait for their first pod.
func delayed(class *storagev1.StorageClass) bool {
	return class.VolumeBindingMode != nil && *class.VolumeBindingMode == storagev1.VolumeBindingWaitForFirstConsumer
}

// elsewhere has the scheduler choose a node again.
func (c *Controller) elsewhere(ctx context.Context, p *claim) error {
	if _, ok := p.Annotations[selectedNode]; !ok {
		return nil
	}
	next := p.DeepCopy()
	delete(next.Annotations, selectedNode)
	if _, err := client.PersistentVolumeClaims.Update(ctx, c.transport, next); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("ask for another node for claim %s: %w", controller.KeyOf(p), err)
	}
	return nil
}

func classOf(p *claim) string {
	if name, ok := p.Annotations[betaClass]; ok {
		return name
	}
	if p.Spec.StorageClassName != nil {
		return *p.Spec.StorageClassName
	}
	return ""
}

// refusal is pure: what a claim asks for that a directory can't be.
func refusal(p *claim) error {
	for _, m := range p.Spec.AccessModes {
		if m != corev1.ReadWriteOnce && m != corev1.ReadWriteOncePod {
			return fmt.Errorf("a directory of one node has the access modes ReadWriteOnce and ReadWriteOncePod, not %s", m)
		}
	}
	switch {
	case p.Spec.VolumeMode != nil && *p.Spec.VolumeMode != corev1.PersistentVolumeFilesystem:
		return fmt.Errorf("a directory has the volume mode Filesystem, not %s", *p.Spec.VolumeMode)
	case p.Spec.Selector != nil:
		return errors.New("claim.Spec.Selector is not supported")
	case p.Spec.DataSource != nil || p.Spec.DataSourceRef != nil:
		return errors.New("a directory begins empty: claim.Spec.DataSource is not supported")
	}
	return nil
}

// plan is pure: the volume for a claim on its node, nil when that isn't known.
func plan(p *claim, class *storagev1.StorageClass, node *corev1.Node) (*volume, error) {
	if err := refusal(p); err != nil {
		return nil, err
	}
	switch {
	case p.Annotations[selectedNode] == "":
		return nil, errors.New("no node was specified: the class must have volumeBindingMode WaitForFirstConsumer")
	case node == nil:
		return nil, fmt.Errorf("node %q is not there: %w", p.Annotations[selectedNode], errNode)
	case !path.IsAbs(node.Annotations[annDirectory]):
		return nil, fmt.Errorf("node %q makes no directories for claims: %w", node.Name, errNode)
	}
	policy := corev1.PersistentVolumeReclaimDelete
	if class.ReclaimPolicy != nil {
		policy = *class.ReclaimPolicy
	}
	ref := client.Reference(p)
	name := nameOf(p)
	return &volume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Finalizers: []string{finalizer},
			Annotations: map[string]string{provisionedBy: Provisioner, annNode: node.Name},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:    corev1.ResourceList{corev1.ResourceStorage: p.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes: slices.Clone(p.Spec.AccessModes), PersistentVolumeReclaimPolicy: policy,
			StorageClassName: class.Name, MountOptions: slices.Clone(class.MountOptions), VolumeMode: p.Spec.VolumeMode,
			PersistentVolumeSource: corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path.Join(node.Annotations[annDirectory], name)}},
			NodeAffinity:           &corev1.VolumeNodeAffinity{Required: only(node)}, ClaimRef: &ref,
		},
	}, nil
}

// only selects a node, by its host name as others do if it has that.
func only(node *corev1.Node) *corev1.NodeSelector {
	term := corev1.NodeSelectorTerm{MatchFields: []corev1.NodeSelectorRequirement{
		{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node.Name}}}}
	if host := node.Labels[corev1.LabelHostname]; host != "" {
		term = corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host}}}}
	}
	return &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}
}
