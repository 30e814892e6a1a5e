// Command kept is in the place of the program that sampan carries.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("kept", os.Args[1:], "HERE="+os.Getenv("HERE")) }
