// SPDX-License-Identifier: Apache-2.0

// Package stacks has tests only, of interfaces that are stacked on one another: whatever a counter selects of them, it
// counts every frame once.
package stacks
