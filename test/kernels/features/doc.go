// SPDX-License-Identifier: Apache-2.0

// Package features tests which kernel features of the datapath a kernel supports, by using them. It has only tests, which
// record their findings for the support table of docs/kernels.md. Command kernels runs them.
package features
