package main

// The parts of the page that are not tables.
const (
	introduction = `# Metrics

<!-- Written by make metrics-docs from agent/metrics.go, controllers/metrics.go and config/prometheus/rules.yaml. -->

Agents serve them on port 9871 of their node, the controller on port 8443, at /metrics, over TLS and to who shows a token
that may read them (chart values ` + "`metrics.*`" + `). Beside these there are the metrics of every Go process, and those of
controller-runtime: passes (` + "`controller_runtime_reconcile_*`" + `), queues (` + "`workqueue_*`" + `) and requests to the API server
(` + "`rest_client_requests_total`" + `).

The totals in the status of an XDPCounter are for people and GitOps; these are for monitoring. Both come from the same
maps. Prometheus keeps numbers as 64-bit floats, which are exact up to 2⁵³ packets or bytes.

## Agents

`
	ofAgents = `
Packets and bytes are read from the kernel's maps at each scrape, independently of the API server; the agent keeps no copy
of them. They belong to the attachment and not to the agent:

* An agent that is killed, restarted or upgraded resets nothing; frames that come meanwhile are in the next scrape.
* A reboot, an interface that is deleted and made again, and a change of the mode begin anew at zero: a plain reset, which
  ` + "`rate`" + ` and ` + "`increase`" + ` know. The status of the XDPCounter goes on counting over it.
* A renamed interface goes on under its new name.
* A class that was never seen has no series. What was counted before a first scrape shows no ` + "`increase`" + `.
* Where the link was cut or the interface is gone there is no series; what it had counted is in the report only.

Label ` + "`family`" + ` is IPv4, IPv6, ARP, Other or Malformed; ` + "`protocol`" + ` is the IANA keyword within IPv4 and IPv6 (` + "`Unassigned-N`" + `
without one), else the family again. A byte of an interface's name that is not UTF-8 is written as ` + "`\\xNN`" + `.

**How many series.** An agent on whose node I interfaces are selected, on which C classes have been seen altogether, serves at
most

    2·C + 4·I + %d

of these: %d for one interface with ten classes, and %d for one on which somebody sends every class that there is (%d). There
is one more for each other mode in which a younger XDPCounter wants an interface. Nobody from outside can make more of them.
Labels have no addresses, ports, IDs of the kernel or names of pods.

## Controller

`
	ofControllers = `
X XDPCounters are at most 5·X + %d series. A standby tells the same of the XDPCounters: take ` + "`max by (xdpcounter)`" + `.

## Scraping

With the Prometheus operator, ` + "`prometheus.enabled`" + ` makes a ServiceMonitor and a PodMonitor. The latter gives what agents
serve the label ` + "`node`" + `, by which alerts and dashboard tell nodes apart; who scrapes otherwise has to add it (from
` + "`__meta_kubernetes_pod_node_name`" + `), and calls the jobs ` + "`xdp-operator-agent`" + ` and ` + "`xdp-operator-controller`" + `.

## Alerts

` + "`prometheus.rules.enabled`" + ` makes a PrometheusRule of ` + "`config/prometheus/rules.yaml`" + `.

`
	end = `
**XDPCounterProtocolShareUnusual** holds the share of each protocol in the packets of an interface, over five minutes,
against its own past day: it comes when the share differs from the mean of that day by more than 20 % of all packets and by
more than four of its standard deviations, for ten minutes. The past ends an hour ago; a protocol that was not there then
had a share of zero, and what stays for an hour becomes part of the past. Interfaces with less than ten packets per second,
now or an hour ago, are left out. More or less of everything does not make it come: that is for
**XDPCounterTrafficStopped** and for the limits that a site knows itself.

The time that programs take (` + "`xdpcounter_program_*`" + `) is measured by the kernel only where ` + "`sysctl kernel.bpf_stats_enabled`" + ` is
1, which costs some of it.

## The dashboard

` + "`prometheus.dashboard.enabled`" + ` makes a ConfigMap that Grafana's sidecar loads; ` + "`config/prometheus/dashboard.json`" + ` can be imported
by hand as well. It has views of the cluster, of nodes and of interfaces, what is attached, and what counting costs.

![Main panels of the dashboard](dashboard.svg)

These are its main panels, drawn from what Prometheus was told in a run of ` + "`make test-prometheus PICTURE=1`" + `: three nodes, of
which node-a's agent is restarted, node-c is switched off and on, node-b gets a flood of ICMP and then loses its hook to
another program, and nobody sends to node-a any more.
`
)
