package explain

// Forecast is what would happen to a cluster: the answer of "sampan simulate".
type Forecast struct {
	// Revision is the live cluster's at which it was read, Objects how many there
	// were; Unread are the kinds that the caller may not read, and that are missing.
	Revision string   `json:"revision"`
	Objects  int      `json:"objects"`
	Unread   []string `json:"unread,omitempty"`
	// Placed are the pods that got a node, Pending those that are left without one,
	// by namespace and name.
	Placed  []Placement `json:"placed,omitempty"`
	Pending []Placement `json:"pending,omitempty"`
	// Gone are the pods of the live cluster that would not be there any more.
	Gone []Loss `json:"gone,omitempty"`
	// Blocked are evictions that are refused to the end.
	Blocked []Loss `json:"blocked,omitempty"`
	// Refused are objects that the API server would not take.
	Refused []Loss `json:"refused,omitempty"`
	// Kept are pods that a drain leaves where they are, and why.
	Kept []Loss `json:"kept,omitempty"`
	// Settled says that all came to rest within the time given.
	Settled bool `json:"settled"`
	// Millis is how long it took.
	Millis int64 `json:"millis"`
}

// Placement is where a pod would be, or why nowhere.
type Placement struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Owner is who made the pod, as "ReplicaSet/web-7d4b"; "" is the caller.
	Owner string `json:"owner,omitempty"`
	// Live says that the pod is one of the live cluster's.
	Live bool `json:"live,omitempty"`
	// Decision is the scheduler's; nil when it made none.
	Decision *Decision `json:"decision,omitempty"`
	Node     string    `json:"node,omitempty"`
	// Reason says why there, or why nowhere.
	Reason string `json:"reason,omitempty"`
}

// Loss is an object with something unpleasant to be said of it.
type Loss struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Node      string `json:"node,omitempty"`
	Reason    string `json:"reason"`
}

// Fulfilled says whether all that was asked for would come about.
func (f Forecast) Fulfilled() bool {
	for _, p := range f.Pending {
		if !p.Live {
			return false
		}
	}
	return f.Settled && len(f.Blocked) == 0 && len(f.Refused) == 0
}
