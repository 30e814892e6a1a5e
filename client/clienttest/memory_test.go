package clienttest_test

import (
	"testing"

	"github.com/sampan-dev/sampan/client"
	"github.com/sampan-dev/sampan/client/clienttest"
)

func TestMemory(t *testing.T) {
	clienttest.Run(t, func(*testing.T) client.Transport { return clienttest.NewMemory() })
}
