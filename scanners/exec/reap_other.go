//go:build !linux

package exec

import (
	"os/exec"
	"syscall"
)

// reap waits for the end of a program and ends what is left of its group.
func reap(cmd *exec.Cmd) error {
	err := cmd.Wait()
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return err
}
