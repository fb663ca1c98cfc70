//go:build !windows

package service

import "context"

func runUnderManager(name string, run func(ctx context.Context) error) error {
	return runInForeground(name, run)
}
