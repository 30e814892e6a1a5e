package clienttest_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

func TestMemory(t *testing.T) {
	clienttest.Run(t, func(*testing.T) client.Transport { return clienttest.NewMemory() })
}

// One who looks on changes nothing, and sees every request.
func TestObserved(t *testing.T) {
	seen := map[string]int{}
	var mu sync.Mutex
	clienttest.Run(t, func(*testing.T) client.Transport {
		return client.Observe(clienttest.NewMemory(), func(r client.Request) {
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprintf("%s %d", r.Method, r.Code)]++
		})
	})
	for _, want := range []string{"GET 200", "GET 404", "POST 201", "POST 409", "PUT 200", "PUT 409", "PATCH 200", "DELETE 200"} {
		if seen[want] == 0 {
			t.Errorf("no %s among %v", want, seen)
		}
	}
}
