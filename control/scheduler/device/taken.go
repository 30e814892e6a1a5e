package device

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/structured"
)

// taken counts the devices that claims have. A claim counts once, whether it is
// promised, written or watched.
type taken struct {
	holders map[types.UID]*claim
	// uses count the holders of devices and shares: should two hold the same, the
	// end of one does not free it.
	devices map[structured.DeviceID]int
	shares  map[structured.SharedDeviceID]int
	state   structured.AllocatedState
}

func newTaken() taken {
	return taken{
		holders: map[types.UID]*claim{}, devices: map[structured.DeviceID]int{}, shares: map[structured.SharedDeviceID]int{},
		state: structured.AllocatedState{
			AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
			AggregatedCapacity: structured.NewConsumedCapacityCollection(),
		},
	}
}

// set says what a claim holds from now on; nil holds nothing.
func (t *taken) set(uid types.UID, c *claim) {
	before := t.holders[uid]
	if before == c {
		return
	}
	if before != nil {
		t.count(before, -1)
		delete(t.holders, uid)
	}
	if c != nil {
		t.count(c, 1)
		t.holders[uid] = c
	}
}

func (t *taken) count(c *claim, by int) {
	for i := range c.Status.Allocation.Devices.Results {
		r := &c.Status.Allocation.Devices.Results[i]
		if r.AdminAccess != nil && *r.AdminAccess {
			continue // whoever supervises a device does not take it
		}
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		if r.ShareID == nil {
			if t.devices[id] += by; t.devices[id] > 0 {
				t.state.AllocatedDevices.Insert(id)
			} else {
				delete(t.devices, id)
				t.state.AllocatedDevices.Delete(id)
			}
			continue
		}
		t.share(id, r, by)
	}
}

// share counts a part of a device that several may have.
func (t *taken) share(id structured.DeviceID, r *resourcev1.DeviceRequestAllocationResult, by int) {
	share := structured.MakeSharedDeviceID(id, r.ShareID)
	if t.shares[share] += by; t.shares[share] > 0 {
		t.state.AllocatedSharedDeviceIDs.Insert(share)
	} else {
		delete(t.shares, share)
		t.state.AllocatedSharedDeviceIDs.Delete(share)
	}
	if r.ConsumedCapacity == nil {
		return
	}
	consumed := structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity)
	if by > 0 {
		t.state.AggregatedCapacity.Insert(consumed)
	} else {
		t.state.AggregatedCapacity.Remove(consumed)
	}
}
