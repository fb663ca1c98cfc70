package brokertest

import "syscall"

// dieWithParent has the kernel kill the child when the thread that started it
// ends (prctl(2), PR_SET_PDEATHSIG).
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
