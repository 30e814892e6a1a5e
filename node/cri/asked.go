package cri

// NetworkAnnotation of a pod with the value NoNetwork asks the built-in engine for no
// network but the pod's loopback, for which the CRI has no word: such a sandbox never has
// an address.
const (
	NetworkAnnotation = "sampan.dev/network"
	NoNetwork         = "none"
)

// FilesAnnotation of a pod asks the built-in engine to have a container begin with what
// the one before it, of the same name in the same pod, has written to its root. Its value
// is a word of the pod's own: one of the same name and namespace with the same word goes on
// with the files of that which was there before, if they were held.
const FilesAnnotation = "sampan.dev/files"
