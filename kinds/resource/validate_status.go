package resource

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"
	resourcev1 "k8s.io/api/resource/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/sampan-dev/sampan/kinds"
	"github.com/sampan-dev/sampan/kinds/core"
	"github.com/sampan-dev/sampan/kinds/declared"
)

func validateClaimStatus(c, old *resourcev1.ResourceClaim) field.ErrorList {
	var f kinds.Faults
	at := kinds.NewPath("status")
	users(&f, c.Status.ReservedFor, at.Child("reservedFor"))
	deviceStatuses(&f, &c.Status, at.Child("devices"))
	reserved(&f, c, old, at.Child("reservedFor"))
	if now := c.Status.Allocation; now != nil && old.Status.Allocation == nil {
		allocated(&f, now, &c.Spec.Devices, at.Child("allocation"))
	}
	r := rules{declared.Update()}
	r.status(&c.Status, &old.Status, at)
	return r.Behind(f.List())
}

// allocated checks what has been given out.
func allocated(f *kinds.Faults, a *resourcev1.AllocationResult, asked *resourcev1.DeviceClaim, at *kinds.Path) {
	few(f, a.Devices.Results, resourcev1.AllocationResultsMaxSize, at.Child("devices").Child("results"), func(r *resourcev1.DeviceRequestAllocationResult, here *kinds.Path) {
		reference(f, asked, r.Request, here.Child("request"))
		f.Join(core.ValidateDriverName(r.Driver, here.Child("driver")))
		pool(f, r.Pool, here.Child("pool"))
		f.Each(here.Child("device"), r.Device, validation.IsDNS1123Label(r.Device))
		binding(f, r.BindingConditions, r.BindingFailureConditions, here)
		for i := range r.Tolerations {
			toleration(f, &r.Tolerations[i], here.Child("tolerations").Index(i))
		}
		if r.ShareID != nil {
			shareID(f, string(*r.ShareID), here.Child("shareID"))
		}
	})
	few(f, a.Devices.Config, 2*resourcev1.DeviceConfigMaxSize, at.Child("devices").Child("config"), func(c *resourcev1.DeviceAllocationConfiguration, here *kinds.Path) {
		kinds.RequiredOneOf(f, here.Child("source"), c.Source, resourcev1.AllocationConfigSourceClaim, resourcev1.AllocationConfigSourceClass)
		references(f, asked, c.Requests, here.Child("requests"))
		configuration(f, &c.DeviceConfiguration, here, false)
	})
	if a.NodeSelector != nil {
		f.Join(core.ValidateNodeSelector(a.NodeSelector, at.Child("nodeSelector")))
	}
}

// shareID is a UUID in its usual form.
func shareID(f *kinds.Faults, id string, at *kinds.Path) {
	if err := uuid.Validate(id); err != nil {
		f.Invalid(at, id, fmt.Sprintf("error validating uid: %v", err))
	} else if len(id) != 36 || id != strings.ToLower(id) {
		f.Invalid(at, id, "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters")
	}
}

// given names one device, or one share of it.
// An error shows the names of its fields.
type given struct{ Driver, Pool, Device, ShareID string }

// deviceStatuses checks what drivers say of the devices that the claim has.
func deviceStatuses(f *kinds.Faults, s *resourcev1.ResourceClaimStatus, at *kinds.Path) {
	has := map[given]bool{}
	if s.Allocation != nil {
		for i := range s.Allocation.Devices.Results {
			r := &s.Allocation.Devices.Results[i]
			has[given{r.Driver, r.Pool, r.Device, string(kinds.Deref(r.ShareID))}] = true
		}
	}
	name := func(d *resourcev1.AllocatedDeviceStatus) given {
		return given{d.Driver, d.Pool, d.Device, kinds.Deref(d.ShareID)}
	}
	for i := range s.Devices {
		d, here := &s.Devices[i], at.Index(i)
		f.Join(core.ValidateDriverName(d.Driver, here.Child("driver")))
		pool(f, d.Pool, here.Child("pool"))
		f.Each(here.Child("device"), d.Device, validation.IsDNS1123Label(d.Device))
		if d.ShareID != nil {
			shareID(f, *d.ShareID, here.Child("shareID"))
		}
		if !has[name(d)] {
			f.Invalid(here, name(d), "must be an allocated device in the claim")
		}
		if n := len(d.Conditions); n > resourcev1.AllocatedDeviceStatusMaxConditions {
			f.TooMany(here.Child("conditions"), n, resourcev1.AllocatedDeviceStatusMaxConditions)
		}
		f.Join(metav1validation.ValidateConditions(d.Conditions, here.Child("conditions").Field()))
		if d.Data != nil && len(d.Data.Raw) > 0 {
			object(f, d.Data.Raw, resourcev1.AllocatedDeviceStatusDataMaxLength, here.Child("data"))
		}
		if d.NetworkData != nil {
			network(f, d.NetworkData, here.Child("networkData"))
		}
	}
	distinct(f, s.Devices, at, name)
}

func network(f *kinds.Faults, d *resourcev1.NetworkDeviceData, at *kinds.Path) {
	if len(d.InterfaceName) > resourcev1.NetworkDeviceDataInterfaceNameMaxLength {
		f.TooLong(at.Child("interfaceName"), resourcev1.NetworkDeviceDataInterfaceNameMaxLength)
	}
	if len(d.HardwareAddress) > resourcev1.NetworkDeviceDataHardwareAddressMaxLength {
		f.TooLong(at.Child("hardwareAddress"), resourcev1.NetworkDeviceDataHardwareAddressMaxLength)
	}
	few(f, d.IPs, resourcev1.NetworkDeviceDataMaxIPs, at.Child("ips"), func(ip *string, here *kinds.Path) {
		f.Join(validation.IsValidInterfaceAddress(here.Field(), *ip))
	})
	distinct(f, d.IPs, at.Child("ips"), func(ip *string) string { return *ip })
}

// dropDevices forgets what is said of devices that the claim had and has no more.
func dropDevices(next, old *resourcev1.ResourceClaim) {
	if old.Status.Allocation == nil || len(next.Status.Devices) == 0 {
		return
	}
	has := func(c *resourcev1.ResourceClaim, d *resourcev1.AllocatedDeviceStatus) bool {
		return c.Status.Allocation != nil && slices.ContainsFunc(c.Status.Allocation.Devices.Results, func(r resourcev1.DeviceRequestAllocationResult) bool {
			return r.Driver == d.Driver && r.Pool == d.Pool && r.Device == d.Device && string(kinds.Deref(r.ShareID)) == kinds.Deref(d.ShareID)
		})
	}
	var left []resourcev1.AllocatedDeviceStatus
	for i := range next.Status.Devices {
		if d := &next.Status.Devices[i]; has(next, d) || !has(old, d) {
			left = append(left, *d)
		}
	}
	next.Status.Devices = left
}

// users checks how the users of a claim are named.
func users(f *kinds.Faults, all []resourcev1.ResourceClaimConsumerReference, at *kinds.Path) {
	few(f, all, resourcev1.ResourceClaimReservedForMaxSize, at, func(u *resourcev1.ResourceClaimConsumerReference, here *kinds.Path) {
		f.NonEmpty(here.Child("resource"), u.Resource)
		f.NonEmpty(here.Child("name"), u.Name)
		f.NonEmpty(here.Child("uid"), string(u.UID))
	})
}

// reserved checks that nobody uses what is not allocated, and nobody new what is
// to go.
func reserved(f *kinds.Faults, c, old *resourcev1.ResourceClaim, at *kinds.Path) {
	users := c.Status.ReservedFor
	switch {
	case len(users) == 0:
	case c.Status.Allocation == nil:
		f.Forbidden(at, "may not be specified when `allocated` is not set")
	case c.DeletionTimestamp != nil:
		if slices.ContainsFunc(users, func(u resourcev1.ResourceClaimConsumerReference) bool {
			return !slices.Contains(old.Status.ReservedFor, u)
		}) {
			f.Forbidden(at, "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set")
		}
	}
}
