// Command generate writes comments.go: generate ROOT FILE.
package main

import (
	"fmt"
	"os"

	"sluice/cmd/sluice/program/config/internal/fieldcomments"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: generate ROOT FILE")
		os.Exit(2)
	}
	if err := write(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintf(os.Stderr, "generate: %v\n", err)
		os.Exit(1)
	}
}

func write(root, file string) error {
	comments, err := fieldcomments.Read(root)
	if err != nil {
		return err
	}
	text, err := fieldcomments.Source(comments)
	if err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644) //nolint:gosec // whoever runs it names the file
}
