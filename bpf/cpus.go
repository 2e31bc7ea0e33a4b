// SPDX-License-Identifier: Apache-2.0

package bpf

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// possibleCPUs lists the CPUs that can be online at any time (Documentation/admin-guide/cputopology.rst of the kernel).
const possibleCPUs = "/sys/devices/system/cpu/possible"

// PossibleCPUs returns the number of tables that the counts need: the highest number of a possible CPU plus one, which the kernel
// calls nr_cpu_ids. The program uses the number of its CPU as an index, and the numbers can have gaps. For a list with gaps,
// ebpf.PossibleCPU returns an error. The error wraps that of reading the list, for which sysfs has to be mounted at /sys.
func PossibleCPUs() (int, error) {
	list, err := os.ReadFile(possibleCPUs)
	if err != nil {
		return 0, fmt.Errorf("read the list of possible CPUs (sysfs has to be mounted at /sys): %w", err)
	}
	highest, err := highestCPU(string(list))
	if err != nil {
		return 0, fmt.Errorf("read the list of possible CPUs from %s: %w", possibleCPUs, err)
	}
	return highest + 1, nil
}

// highestCPU returns the highest number in a list of CPUs, for example 11 for "0,2-3,8-11\n". The kernel writes the list as numbers
// and ranges in ascending order (bitmap_list_string of lib/vsprintf.c).
func highestCPU(list string) (highest int, err error) {
	next := 0
	for part := range strings.SplitSeq(strings.TrimSuffix(list, "\n"), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		first, errFirst := strconv.ParseUint(from, 10, 16)
		last, errLast := strconv.ParseUint(to, 10, 16)
		if errFirst != nil || errLast != nil || first > last || int(first) < next {
			return 0, fmt.Errorf("%q is not a list of CPUs", list)
		}
		highest, next = int(last), int(last)+1
	}
	return highest, nil
}
