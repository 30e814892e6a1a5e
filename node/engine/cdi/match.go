package cdi

import (
	"fmt"
	"strings"
)

// The annotations by which BuildKit, and our builds, know devices.
const (
	classAnnotation = "org.mobyproject.buildkit.device.class"
	freeAnnotation  = "org.mobyproject.buildkit.device.autoallow"
)

// Match are the names, in order, of the devices that a pattern of a build stands for:
// vendor/class=name, vendor/class for the first of a kind, vendor/class=* for all of it,
// or else the class that an annotation gives to devices.
func (d *Devices) Match(pattern string) []string {
	kind, device, _ := strings.Cut(pattern, "=")
	var found []string
	for _, name := range d.Names() {
		switch {
		case !Qualified(kind + "=0"):
		case device == "" && len(found) == 0 && strings.HasPrefix(name, kind+"="),
			device == "*" && strings.HasPrefix(name, kind+"="),
			device != "" && name == pattern:
			found = append(found, name)
		}
	}
	if len(found) > 0 || pattern == "" {
		return found
	}
	for _, name := range d.Names() {
		if d.annotation(name, classAnnotation) == pattern {
			found = append(found, name)
		}
	}
	return found
}

// Free says whether a device's file lets every build have it.
func (d *Devices) Free(name string) bool { return d.annotation(name, freeAnnotation) == "true" }

// annotation is what a device's file says of it, or of all its devices.
func (d *Devices) annotation(name, key string) string {
	f, ok := d.byName[name]
	if !ok {
		return ""
	}
	value, ok := f.device.Annotations[key]
	if !ok {
		value, ok = f.file.Annotations[key]
	}
	if !ok {
		return ""
	}
	return fmt.Sprint(value)
}
