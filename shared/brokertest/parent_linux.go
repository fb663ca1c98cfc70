package brokertest

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// attributes has the kernel kill the child when the thread that started it ends
// (prctl(2), PR_SET_PDEATHSIG). A mosquitto that gives up root itself would lose
// that, as the kernel forgets it when the user changes: such a one is started as
// the user it would become.
func attributes(givesUpRoot bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if givesUpRoot && os.Geteuid() == 0 {
		a.Credential = credential("mosquitto", "nobody")
	}
	return a
}

// credential returns that of the first user who exists; nil if none does.
func credential(names ...string) *syscall.Credential {
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return nil
}
