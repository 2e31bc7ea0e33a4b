// SPDX-License-Identifier: Apache-2.0

// Package apparmor runs the agent under an AppArmor profile like that of containers. It has tests only, which command kernels
// runs.
package apparmor
