// SPDX-License-Identifier: Apache-2.0

//go:build race

package netnscluster

// The race detector needs cgo. Its programs have a folder of their own, since nobody else should run such slow ones.
const (
	raceDetector = true
	programs     = "bin/race"
)

var (
	buildFlags = []string{"-race"}
	buildCGO   = "CGO_ENABLED=1"
)
