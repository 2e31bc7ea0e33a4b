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
