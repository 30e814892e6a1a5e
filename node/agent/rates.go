package agent

import (
	"errors"

	"k8s.io/client-go/util/flowcontrol"

	"github.com/sampan-dev/sampan/client"
)

// errPullRate is upstream's text for a pull that comes too soon after others.
var errPullRate = errors.New("pull QPS exceeded")

// rate allows so many a second, and burst at once; nil is no bound.
func rate(each *int32, burst int32) flowcontrol.RateLimiter {
	if each == nil || *each <= 0 {
		return nil
	}
	return flowcontrol.NewTokenBucketRateLimiter(float32(*each), int(max(burst, 1)))
}

// paced is a transport whose requests wait for their turn, if there is a bound.
func paced(t client.Transport, r flowcontrol.RateLimiter) client.Transport {
	if r == nil {
		return t
	}
	return client.Limit(t, r.Wait)
}
