// SPDX-License-Identifier: Apache-2.0

// Command etcd is etcd's server: its module publishes the server as a library, without a main package.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
