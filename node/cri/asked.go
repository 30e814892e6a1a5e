package cri

// NetworkAnnotation of a pod with the value NoNetwork asks the built-in engine for no
// network but the pod's loopback, for which the CRI has no word: such a sandbox never has
// an address.
const (
	NetworkAnnotation = "sampan.dev/network"
	NoNetwork         = "none"
)
