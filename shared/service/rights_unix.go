//go:build unix

package service

import "os"

func privileged() bool { return os.Geteuid() == 0 }

func howToGetRights(command string) string { return "use sudo " + command }
