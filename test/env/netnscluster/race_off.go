// SPDX-License-Identifier: Apache-2.0

//go:build !race

package netnscluster

const (
	raceDetector = false
	programs     = "bin"
)

var (
	buildFlags []string
	buildCGO   = "CGO_ENABLED=0"
)
