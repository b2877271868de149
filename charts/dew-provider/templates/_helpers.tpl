{{- define "dew-provider.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Quoted, because YAML does not read a release name such as y or 1 as a string. */}}
{{- define "dew-provider.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "dew-provider.labels" -}}
{{ include "dew-provider.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "dew-provider.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "dew-provider.socketDir" -}}
{{ .Values.driver.socketDir | default (printf "%s/plugins/csi-secrets-store" .Values.kubeletRootDir) }}
{{- end }}

{{/* YAML reads a bare off as false. The default is the strictest mode, as in the program. */}}
{{- define "dew-provider.allowList" -}}
{{ if kindIs "bool" .Values.serviceAccountAllowList }}off{{ else }}{{ .Values.serviceAccountAllowList | default "required" }}{{ end }}
{{- end }}

{{/* Checks for which a schema error would be hard to read. */}}
{{- define "dew-provider.check" -}}
{{- with .Values.credentials }}
{{- if and (eq .source "secret") (not .secret.name) }}
{{- fail "\n\ncredentials.source is secret, but credentials.secret.name is empty: set it to the name of a Secret in the release's namespace" }}
{{- end }}
{{- if and (eq .source "environment") (not .environment) }}
{{- fail "\n\ncredentials.source is environment, but credentials.environment is empty: set HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK" }}
{{- end }}
{{- if and (ne .source "secret") .secret.name }}
{{- fail (printf "\n\ncredentials.secret.name is %s, but credentials.source is %s: set the source to secret" .secret.name .source) }}
{{- end }}
{{- if and (ne .source "environment") .environment }}
{{- fail (printf "\n\ncredentials.environment is set, but credentials.source is %s: set the source to environment" .source) }}
{{- end }}
{{- end }}
{{- with index .Values "secrets-store-csi-driver" }}
{{- $root := dig "linux" "kubeletRootDir" "/var/lib/kubelet" . }}
{{- if and .install (ne $root $.Values.kubeletRootDir) }}
{{- fail (printf "\n\nkubeletRootDir is %s, but secrets-store-csi-driver.linux.kubeletRootDir is %s: set both to kubelet's root directory on the nodes, or pods get an empty directory. For CCE, values-cce.yaml sets both" $.Values.kubeletRootDir $root) }}
{{- end }}
{{- end }}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) }}
{{- fail "\n\nmetrics.serviceMonitor.enabled needs metrics.service.enabled: true" }}
{{- end }}
{{- /* YAML allows a key once. The parentheses allow for values kept from an older release. */}}
{{- $own := include "dew-provider.labels" . | fromYaml }}
{{- $monitor := (.Values.metrics.serviceMonitor).labels }}
{{- $rule := (.Values.metrics.prometheusRule).labels }}
{{- $dashboard := (.Values.metrics.dashboard).labels }}
{{- range $value, $labels := dict "podLabels" .Values.podLabels "metrics.serviceMonitor.labels" $monitor "metrics.prometheusRule.labels" $rule "metrics.dashboard.labels" $dashboard }}
{{- range $key, $_ := $labels }}
{{- if hasKey $own $key }}
{{- fail (printf "\n\n%s sets %s, which the chart sets itself: remove it" $value $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
