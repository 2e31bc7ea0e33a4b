// SPDX-License-Identifier: Apache-2.0

package kubeletcluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHierarchies(t *testing.T) {
	for name, test := range map[string]struct {
		mountinfo string
		want      []hierarchy
	}{
		"version 2": {
			"30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			[]hierarchy{{"/sys/fs/cgroup", "cgroup2", ""}},
		},
		"version 1, hybrid, with controllers that share one": {
			"25 22 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n" +
				"26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n" +
				"27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n" +
				"28 25 0:25 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n",
			[]hierarchy{
				{"/sys/fs/cgroup/unified", "cgroup2", ""},
				{"/sys/fs/cgroup/systemd", "cgroup", "none,name=systemd"},
				{"/sys/fs/cgroup/cpu,cpuacct", "cgroup", "cpu,cpuacct"},
			},
		},
		"what is mounted elsewhere is not ours": {
			"30 23 0:26 / /mnt/cgroup rw - cgroup2 cgroup2 rw\n30 23 0:26 / /sys/fs/cgroups rw - cgroup2 cgroup2 rw\n",
			nil,
		},
		"a later mount hides the one before": {
			"30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n31 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n",
			[]hierarchy{{"/sys/fs/cgroup/cpu", "cgroup", "cpu,cpuacct"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, parseHierarchies(test.mountinfo), cmp.AllowUnexported(hierarchy{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
