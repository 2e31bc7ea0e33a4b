{{/* The objects' names are fixed: agents of two releases would share the nodes' interfaces and pins, so a second
release must fail on the names of the first. */}}

{{- define "xdp-operator.labels" -}}
app.kubernetes.io/name: xdp-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: xdp-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Selectors cannot be changed later, so they hold only what never changes. */}}
{{- define "xdp-operator.controller.selector" -}}
app.kubernetes.io/name: xdp-operator
app.kubernetes.io/component: controller
{{- end }}

{{- define "xdp-operator.agent.selector" -}}
app.kubernetes.io/name: xdp-operator
app.kubernetes.io/component: agent
{{- end }}

{{- define "xdp-operator.sweep.selector" -}}
app.kubernetes.io/name: xdp-operator
app.kubernetes.io/component: sweep
{{- end }}

{{/* Without helm.sh/chart: pods need not start again for a new version of the chart alone. */}}
{{- define "xdp-operator.podLabels" -}}
{{- omit (include "xdp-operator.labels" . | fromYaml) "helm.sh/chart" | toYaml }}
{{- end }}

{{- define "xdp-operator.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What a pod of the controller's program may do: nothing on its node. */}}
{{- define "xdp-operator.controller.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "xdp-operator.controller.containerSecurity" -}}
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop:
  - ALL
{{- end }}

{{- define "xdp-operator.agent.podSecurity" -}}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Where the BPF file system is in the pods. containerd's default AppArmor profile denies writing below /sys. */}}
{{- define "xdp-operator.bpffs.mountPath" -}}
/bpf
{{- end }}

{{- define "xdp-operator.bpffs.mount" -}}
- name: bpffs
  mountPath: {{ include "xdp-operator.bpffs.mountPath" . }}
  {{- if ne .Values.agent.bpffs.mountPropagation "None" }}
  mountPropagation: {{ .Values.agent.bpffs.mountPropagation }}
  {{- end }}
{{- end }}

{{- define "xdp-operator.agent.capabilities" -}}
- BPF # maps and programs
- NET_ADMIN # XDP programs, and attaching them
- PERFMON # the verifier: data_end - data is arithmetic with pointers
{{- if .Values.agent.capabilities.sysResource }}
- SYS_RESOURCE # the limit of locked memory, before Linux 5.11
{{- end }}
{{- if .Values.agent.capabilities.sysAdmin }}
- SYS_ADMIN # programs of other owners, to share a hook with them (coexistence: Dispatcher)
{{- end }}
{{- end }}

{{- define "xdp-operator.agent.containerSecurity" -}}
# Kubernetes makes added capabilities effective only for uid 0.
runAsUser: 0
runAsGroup: 0
privileged: false
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- with .Values.agent.appArmorProfile }}
appArmorProfile:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.agent.seLinuxOptions }}
seLinuxOptions:
  {{- toYaml . | nindent 2 }}
{{- end }}
capabilities:
  drop:
  - ALL
  add:
  {{- include "xdp-operator.agent.capabilities" . | nindent 2 }}
{{- end }}

{{/* Of hooks: made anew each time, and gone once all of them have succeeded. */}}
{{- define "xdp-operator.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* The arguments of a program that serves metrics at an address. */}}
{{- define "xdp-operator.metricsArgs" -}}
{{- $metrics := .Values.metrics -}}
{{- if $metrics.enabled }}
- --metrics-bind-address={{ .address }}
{{- if not $metrics.secure }}
- --metrics-secure=false
{{- else if $metrics.certSecret }}
- --metrics-cert-dir=/metrics-cert
{{- end }}
{{- end }}
{{- end }}

{{- define "xdp-operator.certified" -}}
{{- if and .Values.metrics.enabled .Values.metrics.secure .Values.metrics.certSecret }}true{{ end }}
{{- end }}
