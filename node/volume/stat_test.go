package volume

import (
	"io/fs"
	"syscall"
)

func groupOf(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Gid }
