// Package features finds out what a kernel can do of that which the datapath uses, by using it. It has tests only,
// each of which tells what it found to the support table of docs/kernels.md. Command kernels runs them.
package features
