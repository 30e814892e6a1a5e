package core

import (
	"maps"
	"net"
	"path"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/sampan-dev/sampan/kinds"
)

// The forms of an iSCSI qualified name, by how it begins (RFC 3720, 3980).
var (
	iscsiIQN = regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`)
	iscsiEUI = regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)
	iscsiNAA = regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)
)

// What is said of iSCSI volumes, and how long a volume's name and portal may be.
const (
	iscsiText     = "must be valid format"
	initiatorText = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."
	maxInitiator  = 64
)

// partition may be 0, whatever the message says: that is "the whole disk".
func (c *podCheck) partition(at *kinds.Path, number int32) {
	if number < 0 || number > 255 {
		c.Invalid(at, number, validation.InclusiveRangeError(1, 255))
	}
}

func (c *podCheck) secretRef(at *kinds.Path, ref *corev1.LocalObjectReference) {
	if ref != nil {
		c.NonEmpty(at.Child("secretRef").Child("name"), ref.Name)
	}
}

func (c *podCheck) lun(at *kinds.Path, number int32) {
	if number < 0 || number > 255 {
		c.Invalid(at, number, validation.InclusiveRangeError(0, 255))
	}
}

func (c *podCheck) checkNFS(s *corev1.NFSVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("server"), s.Server)
	c.NonEmpty(at.Child("path"), s.Path)
	if !path.IsAbs(s.Path) {
		c.Invalid(at.Child("path"), s.Path, absolutePathText)
	}
}

// iscsiCheck is what is checked of an iSCSI volume, a pod's or a persistent one.
type iscsiCheck struct {
	iqn         string
	initiator   *string
	lun         int32
	needsSecret bool
	// other is what is said of a name that begins with none of the known forms.
	other string
}

func (c *podCheck) checkISCSI(s *iscsiCheck, at *kinds.Path) {
	if c.NonEmpty(at.Child("iqn"), s.iqn) {
		c.iscsiName(at.Child("iqn"), s.iqn, s.other)
	}
	c.lun(at.Child("lun"), s.lun)
	if s.needsSecret {
		c.Required(at.Child("secretRef"), "")
	}
}

func (c *podCheck) checkInitiator(s *iscsiCheck, at *kinds.Path) {
	if s.initiator != nil {
		c.iscsiName(at.Child("initiatorname"), *s.initiator, s.other)
	}
}

func (c *podCheck) checkPodISCSI(s *corev1.ISCSIVolumeSource, at *kinds.Path) {
	check := &iscsiCheck{
		iqn: s.IQN, initiator: s.InitiatorName, lun: s.Lun,
		needsSecret: (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil,
		other:       "must be valid format starting with iqn, eui, or naa",
	}
	c.NonEmpty(at.Child("targetPortal"), s.TargetPortal)
	c.checkISCSI(check, at)
	c.checkInitiator(check, at)
}

func (c *podCheck) iscsiName(at *kinds.Path, name, other string) {
	for prefix, form := range map[string]*regexp.Regexp{"iqn": iscsiIQN, "eui": iscsiEUI, "naa": iscsiNAA} {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if !form.MatchString(name) {
			c.Invalid(at, name, iscsiText)
		}
		return
	}
	c.Invalid(at, name, other)
}

func (c *podCheck) checkFlocker(s *corev1.FlockerVolumeSource, at *kinds.Path) {
	switch {
	case s.DatasetName == "" && s.DatasetUUID == "":
		c.Required(at, "one of datasetName and datasetUUID is required")
	case s.DatasetName != "" && s.DatasetUUID != "":
		c.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(s.DatasetName, "/") {
		c.Invalid(at.Child("datasetName"), s.DatasetName, "must not contain '/'")
	}
}

func (c *podCheck) checkQuobyte(s *corev1.QuobyteVolumeSource, at *kinds.Path) {
	switch {
	case s.Registry == "":
		c.Required(at.Child("registry"), "must be a host:port pair or multiple pairs separated by commas")
	case len(s.Tenant) >= 65:
		c.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	default:
		for _, pair := range strings.Split(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				c.Invalid(at.Child("registry"), s.Registry, "must be a host:port pair or multiple pairs separated by commas")
			}
		}
	}
	c.NonEmpty(at.Child("volume"), s.Volume)
}

func (c *podCheck) checkFC(s *corev1.FCVolumeSource, at *kinds.Path) {
	targets := at.Child("targetWWNs")
	switch {
	case len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0:
		c.Required(targets, "must specify either targetWWNs or wwids, but not both")
	case len(s.TargetWWNs) > 0 && len(s.WWIDs) > 0:
		c.Invalid(targets, s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(s.TargetWWNs) == 0 {
		return
	}
	if s.Lun == nil {
		c.Required(at.Child("lun"), "lun is required if targetWWNs is specified")
		return
	}
	c.lun(at.Child("lun"), *s.Lun)
}

func (c *podCheck) checkFlex(driver string, options map[string]string, at *kinds.Path) {
	c.NonEmpty(at.Child("driver"), driver)
	for _, key := range slices.Sorted(maps.Keys(options)) {
		namespace, _, _ := strings.Cut(key, "/")
		normal := "." + strings.ToLower(namespace)
		if strings.HasSuffix(normal, ".kubernetes.io") || strings.HasSuffix(normal, ".k8s.io") {
			c.Invalid(at.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func (c *podCheck) checkAzureDisk(s *corev1.AzureDiskVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("diskName"), s.DiskName)
	c.NonEmpty(at.Child("diskURI"), s.DataDiskURI)
	if s.CachingMode != nil {
		kinds.OneOf(&c.Faults, at.Child("cachingMode"), *s.CachingMode, corev1.AzureDataDiskCachingNone,
			corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if s.Kind == nil {
		return
	}
	kinds.OneOf(&c.Faults, at.Child("kind"), *s.Kind, corev1.AzureSharedBlobDisk, corev1.AzureDedicatedBlobDisk,
		corev1.AzureManagedDisk)
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == corev1.AzureManagedDisk {
		prefix, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, prefix) {
		kinds.OneOf(&c.Faults, at.Child("diskURI"), s.DataDiskURI, form)
	}
}

func (c *podCheck) checkStorageOS(name, namespace string, at *kinds.Path) {
	if c.NonEmpty(at.Child("volumeName"), name) {
		c.label(at.Child("volumeName"), name)
	}
	if namespace != "" {
		c.label(at.Child("volumeNamespace"), namespace)
	}
}

func (c *podCheck) checkScaleIO(gateway, system, volume string, at *kinds.Path) {
	c.NonEmpty(at.Child("gateway"), gateway)
	c.NonEmpty(at.Child("system"), system)
	c.NonEmpty(at.Child("volumeName"), volume)
}

func (c *podCheck) checkDisk(id string, name string, partition int32, at *kinds.Path) {
	c.NonEmpty(at.Child(name), id)
	c.partition(at.Child("partition"), partition)
}

func (c *podCheck) checkCeph(monitors []string, at *kinds.Path) {
	if len(monitors) == 0 {
		c.Required(at.Child("monitors"), "")
	}
}
