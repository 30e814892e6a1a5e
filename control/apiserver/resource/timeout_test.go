package resource

import (
	"net/url"
	"testing"
	"time"
)

// What a URL says of a request's time counts where it is less than the server's.
func TestTimeoutOf(t *testing.T) {
	for query, want := range map[string]time.Duration{
		"": RequestTimeout, "timeout=": RequestTimeout, "timeout=0s": RequestTimeout, "timeout=2h": RequestTimeout,
		"timeout=1500ms": 1500 * time.Millisecond, "timeout=32s": 32 * time.Second, "timeout=-1s": RequestTimeout,
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := TimeoutOf(q); got != want || err != nil {
			t.Errorf("%q: %v, %v", query, got, err)
		}
	}
	_, err := TimeoutOf(url.Values{"timeout": {"soon"}})
	if err == nil || err.Error() != `invalid timeout specified in the request URL - time: invalid duration "soon"` {
		t.Errorf("soon: %v", err)
	}
}
