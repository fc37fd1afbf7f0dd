{{/* The name of everything: the release's where that says lookback already, else both. */}}
{{- define "lookback.name" -}}
{{- if contains "lookback" .Release.Name -}}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else -}}{{ printf "%s-lookback" .Release.Name | trunc 52 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "lookback.selector" -}}
app.kubernetes.io/name: lookback
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lookback.labels" -}}
{{ include "lookback.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
