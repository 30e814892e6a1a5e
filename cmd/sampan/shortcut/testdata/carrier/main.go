// Command carrier is a small program with the shortcut in it.
package main

import (
	"fmt"
	"os"

	_ "github.com/sampan-dev/sampan/cmd/sampan/shortcut" // its entry and its init are what is tested
)

func main() { fmt.Println("carrier", os.Args[1:], "HERE="+os.Getenv("HERE")) }
