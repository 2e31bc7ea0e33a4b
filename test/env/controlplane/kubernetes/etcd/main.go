// SPDX-License-Identifier: Apache-2.0

// Command etcd is etcd's server: its module publishes the server as a library, without a main package. It is in the module
// of Kubernetes, so that the modules that both need, such as gRPC, have one version and are compiled once.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
