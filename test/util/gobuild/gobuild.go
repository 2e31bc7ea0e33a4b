// SPDX-License-Identifier: Apache-2.0

// Package gobuild has what all builds by the go command in tests share.
package gobuild

import "os"

// Env returns the environment for the go command, with values of the form "NAME=value" added. The compiler collects garbage less
// often than by default, unless the caller has set GOGC: that saves a fifth of the time, and needs about 1 GB of memory.
// It must not be the environment of programs that are measured.
func Env(values ...string) []string {
	env := append(os.Environ(), values...)
	if os.Getenv("GOGC") == "" {
		env = append(env, "GOGC=400")
	}
	return env
}
