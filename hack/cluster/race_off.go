//go:build !race

package cluster

const (
	raceDetector = false
	programs     = "bin"
)

var (
	buildFlags []string
	buildCGO   = "CGO_ENABLED=0"
)
