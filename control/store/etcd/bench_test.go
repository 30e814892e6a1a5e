package etcd_test

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/sampan-dev/sampan/control/store/etcd"
)

// BenchmarkWrite compares our Create, which is a transaction, with etcd's plain
// put: durable writes of 2 KB, alone and by many at once.
func BenchmarkWrite(b *testing.B) {
	value := bytes.Repeat([]byte{'x'}, 2048)
	s := start(b, etcd.EmbedConfig{Dir: b.TempDir()}).Store()
	var n atomic.Int64
	key := func() string { return fmt.Sprintf("/registry/pods/default/%d", n.Add(1)) }
	ways := map[string]func() error{
		"Put": func() error {
			_, err := s.Client().Put(b.Context(), key(), string(value))
			return err
		},
		"Create": func() error {
			_, err := s.Create(b.Context(), key(), value, 0)
			return err
		},
	}
	for _, name := range []string{"Put", "Create"} {
		write := ways[name]
		b.Run(name+"/1", func(b *testing.B) {
			for b.Loop() {
				if err := write(); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/32", func(b *testing.B) {
			b.SetParallelism(16)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := write(); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
