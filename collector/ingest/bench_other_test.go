//go:build !unix

package ingest_test

import "time"

// ownCPU is not measured here.
func ownCPU() time.Duration { return 0 }
