package core

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
)

const (
	fileModeText     = "must be a number between 0 and 0777 (octal), both inclusive"
	emptyDirModeText = "must be a number between 0 and 01777 (octal), both inclusive"
	absolutePathText = "must be an absolute path"
)

// checkVolumes checks the volumes and remembers those that are well formed.
func (c *podCheck) checkVolumes(at *kinds.Path) {
	ephemeral := sets.New[string]()
	for i := range c.spec.Volumes {
		if v := &c.spec.Volumes[i]; v.Ephemeral != nil && c.podName() != "" {
			ephemeral.Insert(c.podName() + "-" + v.Name)
		}
	}
	for i := range c.spec.Volumes {
		v, here := &c.spec.Volumes[i], at.Index(i)
		before := c.Count()
		c.checkVolumeSource(v, here)
		if c.NonEmpty(here.Child("name"), v.Name) {
			c.label(here.Child("name"), v.Name)
		}
		if _, twice := c.volumes[v.Name]; twice {
			c.Duplicate(here.Child("name"), v.Name)
		}
		if c.Count() == before {
			c.volumes[v.Name] = &v.VolumeSource
		}
		if claim := v.PersistentVolumeClaim; claim != nil && ephemeral.Has(claim.ClaimName) {
			c.Invalid(here.Child("persistentVolumeClaim").Child("claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume")
		}
	}
}

func (c *podCheck) podName() string {
	if c.meta == nil {
		return ""
	}
	return c.meta.Name
}

type volumeSource = corev1.VolumeSource

// checkVolumeSource wants exactly one source, and that one to be right.
func (c *podCheck) checkVolumeSource(v *corev1.Volume, at *kinds.Path) {
	first := checkSources(c, volumeChecks, &v.VolumeSource, at)
	if v.ISCSI != nil && v.ISCSI.InitiatorName != nil && len(v.Name+":"+v.ISCSI.TargetPortal) > maxInitiator {
		c.Invalid(at.Child("name"), v.Name, initiatorText)
	}
	if first == "ephemeral" && c.podName() != "" && v.Name != "" {
		claim := c.podName() + "-" + v.Name
		for _, message := range apivalidation.NameIsDNSSubdomain(claim, false) {
			c.Invalid(at.Child("name"), v.Name, fmt.Sprintf("PVC name %q: %v", claim, message))
		}
	}
}

func (c *podCheck) checkEmptyDir(s *corev1.EmptyDirVolumeSource, at *kinds.Path) {
	if s.SizeLimit != nil && s.SizeLimit.Cmp(resource.Quantity{}) < 0 {
		c.Forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
	}
	if s.Mode != nil && (*s.Mode < 0 || *s.Mode > 0o1777) {
		c.Invalid(at.Child("mode"), *s.Mode, emptyDirModeText)
	}
}

func (c *podCheck) checkHostPath(s *corev1.HostPathVolumeSource, at *kinds.Path) {
	if !c.NonEmpty(at.Child("path"), s.Path) {
		return
	}
	c.noBacksteps(at.Child("path"), s.Path)
	if s.Type != nil {
		kinds.OneOf(&c.Faults, at.Child("type"), *s.Type, corev1.HostPathUnset, corev1.HostPathDirectoryOrCreate,
			corev1.HostPathDirectory, corev1.HostPathFileOrCreate, corev1.HostPathFile, corev1.HostPathSocket,
			corev1.HostPathCharDev, corev1.HostPathBlockDev)
	}
}

func (c *podCheck) checkSecretVolume(s *corev1.SecretVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("secretName"), s.SecretName)
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	c.userID(at.Child("defaultUser"), s.DefaultUser)
	c.checkItems(s.Items, at.Child("items"))
}

func (c *podCheck) checkConfigMapVolume(s *corev1.ConfigMapVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("name"), s.Name)
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	c.userID(at.Child("defaultUser"), s.DefaultUser)
	c.checkItems(s.Items, at.Child("items"))
}

func (c *podCheck) checkItems(items []corev1.KeyToPath, at *kinds.Path) {
	for i := range items {
		item, here := &items[i], at.Index(i)
		c.NonEmpty(here.Child("key"), item.Key)
		c.NonEmpty(here.Child("path"), item.Path)
		c.localPath(here.Child("path"), item.Path)
		c.fileMode(here.Child("mode"), item.Mode)
		c.userID(here.Child("user"), item.User)
	}
}

func (c *podCheck) checkDownward(s *corev1.DownwardAPIVolumeSource, at *kinds.Path) {
	c.fileMode(at.Child("defaultMode"), s.DefaultMode)
	c.userID(at.Child("defaultUser"), s.DefaultUser)
	for i := range s.Items {
		c.checkDownwardFile(&s.Items[i], at)
	}
}

// checkDownwardFile reports at the volume, as upstream, not at the item.
func (c *podCheck) checkDownwardFile(file *corev1.DownwardAPIVolumeFile, at *kinds.Path) {
	c.NonEmpty(at.Child("path"), file.Path)
	c.localPath(at.Child("path"), file.Path)
	switch {
	case file.FieldRef != nil:
		c.checkFieldRef(file.FieldRef, volumeFieldPaths, at.Child("fieldRef"))
		if file.ResourceFieldRef != nil {
			c.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case file.ResourceFieldRef != nil:
		c.checkResourceFieldRef(file.ResourceFieldRef, true, at.Child("resourceFieldRef"))
	default:
		c.Required(at, "one of fieldRef and resourceFieldRef is required")
	}
	c.fileMode(at.Child("mode"), file.Mode)
	c.userID(at.Child("user"), file.User)
}

func (c *podCheck) checkCSI(s *corev1.CSIVolumeSource, at *kinds.Path) {
	c.Join(validateDriverName(s.Driver, at.Child("driver")))
	if ref := s.NodePublishSecretRef; ref != nil {
		if c.NonEmpty(at.Child("nodePublishSecretRef").Child("name"), ref.Name) {
			c.Each(at.Child("name"), ref.Name, apivalidation.NameIsDNSSubdomain(ref.Name, false))
		}
	}
}

// maxDriverName is the longest name of a CSI driver.
const maxDriverName = 63

func validateDriverName(name string, at *kinds.Path) field.ErrorList {
	var f kinds.Faults
	if !f.NonEmpty(at, name) {
		return f.List()
	}
	if len(name) > maxDriverName {
		f.TooLong(at, maxDriverName)
	}
	f.Each(at, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))
	return f.List()
}

func (c *podCheck) checkEphemeral(s *corev1.EphemeralVolumeSource, at *kinds.Path) {
	if s.VolumeClaimTemplate == nil {
		c.Required(at.Child("volumeClaimTemplate"), "")
		return
	}
	c.Join(validateClaimTemplate(s.VolumeClaimTemplate, at.Child("volumeClaimTemplate")))
}

func (c *podCheck) checkImageVolume(s *corev1.ImageVolumeSource, at *kinds.Path) {
	c.NonEmpty(at.Child("reference"), s.Reference)
	c.pullPolicy(at.Child("pullPolicy"), s.PullPolicy)
}

func (c *podCheck) fileMode(at *kinds.Path, mode *int32) {
	if mode != nil && (*mode < 0 || *mode > 0o777) {
		c.Invalid(at, *mode, fileModeText)
	}
}

func (c *podCheck) userID(at *kinds.Path, id *int64) {
	if id != nil {
		c.Each(at, *id, validation.IsValidUserID(*id))
	}
}

// noBacksteps refuses ".." as an element of a path.
func (c *podCheck) noBacksteps(at *kinds.Path, value string) {
	if hasBacksteps(value) {
		c.Invalid(at, value, "must not contain '..'")
	}
}

func hasBacksteps(value string) bool {
	for _, element := range strings.Split(value, "/") {
		if element == ".." {
			return true
		}
	}
	return false
}

// descendingPath wants a relative path that stays inside.
func (c *podCheck) descendingPath(at *kinds.Path, value string) {
	if path.IsAbs(value) {
		c.Invalid(at, value, "must be a relative path")
	}
	c.noBacksteps(at, value)
}

// localPath also keeps out of the names that start with two dots, which the
// atomic writer of volumes uses for itself.
func (c *podCheck) localPath(at *kinds.Path, value string) {
	c.descendingPath(at, value)
	if strings.HasPrefix(value, "..") && !strings.HasPrefix(value, "../") {
		c.Invalid(at, value, "must not start with '..'")
	}
}
