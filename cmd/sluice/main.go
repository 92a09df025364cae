// Command sluice receives mail, decides about it and files it.
package main

import "sluice/cmd/sluice/program"

func main() {
	program.Main(program.Stages()...)
}
