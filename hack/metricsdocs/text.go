// SPDX-License-Identifier: Apache-2.0

package main

// The parts of the page that are not tables.
const (
	introduction = `# Metrics

<!-- Written by make metrics-docs from agent/metrics.go, controllers/metrics.go and config/prometheus/rules.yaml. -->

Agents serve metrics on port 9871 of their node, and the controller on port 8443. The path is /metrics. Both use TLS and
require a token that is allowed to read the path (chart values ` + "`metrics.*`" + `). Both also serve the standard metrics of Go
processes and of controller-runtime: passes (` + "`controller_runtime_reconcile_*`" + `), queues (` + "`workqueue_*`" + `) and requests to
the API server (` + "`rest_client_requests_total`" + `).

The totals in the status of an XDPCounter are for people and GitOps. The metrics are for monitoring. Both are read from the
same BPF maps. Prometheus stores numbers as 64-bit floats, which are exact up to 2⁵³ packets or bytes.

## Agents

`
	ofAgents = `
Packets and bytes are read from the BPF maps at each scrape, independently of the API server. The agent keeps no copy of
them. The counts belong to the attached program and not to the agent:

* If an agent is killed, restarted or upgraded, nothing is reset. Frames that arrive in the meantime are in the next scrape.
* A reboot, deleting and creating an interface again, and a change of the mode reset the counts to zero. ` + "`rate`" + ` and
  ` + "`increase`" + ` handle such a reset. The status of the XDPCounter is not reset.
* If an interface is renamed, its counts continue under the new name.
* A class that was never seen has no series. Packets that were counted before the first scrape are not part of ` + "`increase`" + `.
* If a program was detached by someone else, or its interface no longer exists, there is no series. Its counts are only in
  the report.

Label ` + "`family`" + ` is IPv4, IPv6, ARP, Other or Malformed; ` + "`protocol`" + ` is the IANA keyword within IPv4 and IPv6 (` + "`Unassigned-N`" + `
if there is none), and the name of the family otherwise. A byte of an interface name that is not UTF-8 is written as ` + "`\\xNN`" + `.

**Number of series.** An agent serves at most

    2·C + 4·I + %d

of these series, where I is the number of selected interfaces and C is the number of classes seen on them, added up over all
interfaces. That is %d for one interface with ten classes, and %d for one interface that has received all %d classes. If a
younger XDPCounter requests another mode for an interface, there is one more series for each such mode. Received traffic
cannot create more series. Labels contain no addresses, ports, kernel IDs or pod names.

## Controller

`
	ofControllers = `
For X XDPCounters there are at most 5·X + %d series. A standby replica serves the same values for the XDPCounters, but
smaller ages: it counts from the scrape that first saw a report. So aggregate with ` + "`max by (xdpcounter)`" + `.

## Scraping

With the Prometheus operator, ` + "`prometheus.enabled`" + ` creates a ServiceMonitor and a PodMonitor. The PodMonitor adds the
label ` + "`node`" + ` to the metrics of agents, which alerts and dashboard need. If you scrape in another way, add this label (from
` + "`__meta_kubernetes_pod_node_name`" + `), and name the jobs ` + "`xdp-operator-agent`" + ` and ` + "`xdp-operator-controller`" + `.

## Alerts

` + "`prometheus.rules.enabled`" + ` creates a PrometheusRule from ` + "`config/prometheus/rules.yaml`" + `.

`
	end = `
**XDPCounterProtocolShareUnusual** compares the share of each protocol in the packets of an interface, over five minutes,
with its share in the past day. It fires if for ten minutes the share differs from the mean of that day by more than 20 % of
all packets and by more than four standard deviations. The day ends an hour ago, so a protocol that is new has a mean of zero
at first, and a change that lasts for an hour becomes part of the mean. Interfaces with less than ten packets per second, now
or an hour ago, are left out. A change in the total amount of traffic does not fire this alert. For that there is
**XDPCounterTrafficStopped**; other limits depend on the site.

The kernel measures the run time of programs (` + "`xdpcounter_program_*`" + `) only if ` + "`sysctl kernel.bpf_stats_enabled`" + ` is 1.
The measurement itself costs some CPU time.

## The dashboard

` + "`prometheus.dashboard.enabled`" + ` creates a ConfigMap that Grafana's sidecar loads. ` + "`config/prometheus/dashboard.json`" + ` can also
be imported manually. The dashboard shows the cluster, nodes, interfaces, attached programs, and the cost of counting.

![Main panels of the dashboard](dashboard.svg)

The picture shows the main panels with data of a run of ` + "`make test-prometheus PICTURE=1`" + ` with three nodes. The agent of node-a
is restarted, node-c is switched off and on, node-b receives a flood of ICMP and then loses its XDP hook to another program,
and traffic to node-a stops.
`
)
