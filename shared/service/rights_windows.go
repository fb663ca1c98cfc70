package service

import "golang.org/x/sys/windows"

func privileged() bool { return windows.GetCurrentProcessToken().IsElevated() }

func howToGetRights(command string) string {
	return "open a terminal with \"Run as administrator\" and run " + command
}
