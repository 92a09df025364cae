// Command own-stage is Sluice with a stage of a site's own.
package main

import "sluice/cmd/sluice/program"

func main() {
	program.Main(append(program.Stages(), impostor())...)
}
