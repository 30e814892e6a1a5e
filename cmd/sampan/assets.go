package main

import (
	"embed"
	"errors"
	"io/fs"
)

// assets holds the programs that sampan carries; make puts them there.
//
//go:embed assets
var assets embed.FS

// keeper is the program that parents containers.
func keeper() ([]byte, error) {
	program, err := assets.ReadFile("assets/keeper")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("this sampan was built without the keeper, which parents containers: build it with make")
	}
	return program, err
}

// kubectl is the compressed kubectl; nil when it was left out of the build.
func kubectl() []byte {
	program, err := assets.ReadFile("assets/kubectl.zst")
	if err != nil {
		return nil
	}
	return program
}
