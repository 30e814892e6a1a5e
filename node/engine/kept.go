package engine

// kept are things by their IDs, and by the groups that they belong to: the agent asks
// for those of one pod at every turn of its life, which must not cost more on a node
// with more pods.
type kept[T any] struct {
	all    map[string]*T
	groups map[string]map[string]*T
	of     func(*T) []string
}

// newKept keeps nothing yet; of names the groups of a thing, "" for none.
func newKept[T any](of func(*T) []string) *kept[T] {
	return &kept[T]{all: map[string]*T{}, groups: map[string]map[string]*T{}, of: of}
}

// put keeps v, instead of what was known by the ID before.
func (k *kept[T]) put(id string, v *T) {
	k.drop(id)
	k.all[id] = v
	for _, name := range k.of(v) {
		if name == "" {
			continue
		}
		if k.groups[name] == nil {
			k.groups[name] = map[string]*T{}
		}
		k.groups[name][id] = v
	}
}

func (k *kept[T]) drop(id string) {
	v := k.all[id]
	if v == nil {
		return
	}
	delete(k.all, id)
	for _, name := range k.of(v) {
		if delete(k.groups[name], id); len(k.groups[name]) == 0 {
			delete(k.groups, name)
		}
	}
}

// in are the things of a group; "" is all of them. The map is for reading.
func (k *kept[T]) in(group string) map[string]*T {
	if group == "" {
		return k.all
	}
	return k.groups[group]
}

// labelPod is by what agents know their pods again.
const labelPod = "io.kubernetes.pod.uid"

// podOf is the group of what has such labels, or of what a selector asks for; "" if they
// name no pod.
func podOf(labels map[string]string) string {
	if uid := labels[labelPod]; uid != "" {
		return "pod " + uid
	}
	return ""
}

// inSandbox is the group of a sandbox's containers.
func inSandbox(id string) string { return "sandbox " + id }
