package resource

import (
	"fmt"
	"maps"
	"math"
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sampan-dev/sampan/kinds"
)

// maxOptions bounds the amounts that a policy lists; upstream's.
const maxOptions = 10

// capacities checks what a device has. Only of what several may share there is a
// policy about the shares.
func (c *deviceCheck) capacities() {
	at := c.at.Child("capacity")
	for _, name := range slices.Sorted(maps.Keys(c.now.Capacity)) {
		have := c.now.Capacity[name]
		qualified(c.Faults, string(name), at)
		policy := at.Key(shorten(string(name))).Child("requestPolicy")
		switch p := have.RequestPolicy; {
		case p == nil:
		case !kinds.Deref(c.now.AllowMultipleAllocations):
			c.Forbidden(policy, "allowMultipleAllocations must be true")
		case len(p.ValidValues) > 0 && p.ValidRange != nil:
			c.Forbidden(policy, `exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time`)
		case len(p.ValidValues) > 0:
			options(c.Faults, p, have.Value, policy)
		case p.ValidRange != nil && p.Default == nil:
			c.Required(policy.Child("default"), "required when validRange is defined")
		case p.ValidRange != nil:
			(&rangeCheck{c.Faults, p.ValidRange, *p.Default, have.Value, policy.Child("validRange")}).all()
		}
	}
}

// options are the amounts that may be asked for, in order, the default among them.
func options(f *kinds.Faults, p *resourcev1.CapacityRequestPolicy, most resource.Quantity, at *kinds.Path) {
	if p.Default == nil {
		f.Required(at.Child("default"), "required when validValues is defined")
		return
	}
	at = at.Child("validValues")
	for i := 1; i < len(p.ValidValues); i++ {
		if p.ValidValues[i-1].Cmp(p.ValidValues[i]) > 0 {
			f.Invalid(at.Index(i), p.ValidValues[i].String(), "values must be sorted in ascending order")
		}
	}
	found := false
	few(f, p.ValidValues, maxOptions, at, func(q *resource.Quantity, here *kinds.Path) {
		if q.Cmp(most) > 0 {
			f.Invalid(here, q.String(), "option is larger than capacity value: "+most.String())
		}
		found = found || q.Cmp(*p.Default) == 0
	})
	distinct(f, p.ValidValues, at, func(q *resource.Quantity) string { return q.AsDec().String() })
	if !found {
		f.Invalid(at, p.Default.String(), "default value is not valid according to the requestPolicy")
	}
}

// rangeCheck checks the range of amounts that may be asked for.
type rangeCheck struct {
	*kinds.Faults
	r    *resourcev1.CapacityRequestPolicyRange
	def  resource.Quantity
	most resource.Quantity
	at   *kinds.Path
}

func (c *rangeCheck) all() {
	least, highest := c.r.Min, c.r.Max
	if least == nil {
		c.Required(c.at.Child("min"), "required when validRange is defined")
		return
	}
	if least.Cmp(c.most) > 0 {
		c.Invalid(c.at.Child("min"), least.String(), "min is larger than capacity value: "+c.most.String())
	}
	if c.def.Cmp(*least) < 0 {
		c.Invalid(c.at.Child("default"), c.def.String(), "default is less than min: "+least.String())
	}
	if highest != nil {
		if least.Cmp(*highest) > 0 {
			c.Invalid(c.at.Child("max"), least.String(), "min is larger than max: "+highest.String())
		}
		if highest.Cmp(c.most) > 0 {
			c.Invalid(c.at.Child("max"), highest.String(), "max is larger than capacity value: "+c.most.String())
		}
		if c.def.Cmp(*highest) > 0 {
			c.Invalid(c.at.Child("default"), c.def.String(), "default is more than max: "+highest.String())
		}
	}
	c.steps()
}

// steps checks that default and maximum are so many steps above the minimum, in
// thousandths when any of the amounts is no whole number.
func (c *rangeCheck) steps() {
	named := []struct {
		name string
		q    *resource.Quantity
	}{{"default", &c.def}, {"min", c.r.Min}, {"max", c.r.Max}, {"step", c.r.Step}}
	fine := false
	for _, n := range named {
		fine = fine || n.q != nil && fractional(n.q)
	}
	safe := true
	for _, n := range named {
		if n.q != nil && fine && n.q.Cmp(*resource.NewMilliQuantity(n.q.MilliValue(), n.q.Format)) != 0 {
			c.Invalid(c.at.Child(n.name), n.q.String(), "value cannot be represented as a milli value")
			safe = false
		}
	}
	step := c.r.Step
	if step == nil || !safe {
		return
	}
	if step.Sign() <= 0 {
		c.Invalid(c.at.Child("step"), step.String(), "must be greater than zero")
		return
	}
	next := c.r.Min.DeepCopy()
	if next.Add(*step); next.Cmp(c.most) > 0 {
		c.Invalid(c.at.Child("step"), step.String(), fmt.Sprintf("one step %s is larger than capacity value: %s", next.String(), c.most.String()))
	}
	for _, n := range named {
		switch {
		case n.q == nil || fine:
		case n.q.Sign() < 0:
			c.Invalid(c.at.Child(n.name), n.q.String(), "must be greater than or equal to 0")
			safe = false
		case n.q.CmpInt64(math.MaxInt64) > 0:
			c.Invalid(c.at.Child(n.name), n.q.String(), "must not be larger than 9223372036854775807")
			safe = false
		}
	}
	for _, q := range []*resource.Quantity{&c.def, c.r.Max} {
		if q != nil && safe && !multiple(q, c.r.Min, step, fine) {
			c.Invalid(c.at.Child("step"), q.String(), fmt.Sprintf("value is not a multiple of a given step (%s) from (%s)", step.String(), c.r.Min.String()))
		}
	}
}

func multiple(q, least, step *resource.Quantity, fine bool) bool {
	if fine {
		return (q.MilliValue()-least.MilliValue())%step.MilliValue() == 0
	}
	return (q.Value()-least.Value())%step.Value() == 0
}

// fractional says whether an amount is no whole number.
func fractional(q *resource.Quantity) bool {
	whole := q.DeepCopy()
	whole.RoundUp(0)
	return whole.Cmp(*q) != 0
}
