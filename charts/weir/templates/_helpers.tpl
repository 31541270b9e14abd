{{- define "weir.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "weir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "weir.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the schema cannot say: how values go together. */}}
{{- define "weir.check" -}}
{{- $c := .Values.certificates -}}
{{- if ge (include "weir.seconds" $c.renewBefore | int64) (include "weir.seconds" $c.duration | int64) -}}
{{- fail (printf "certificates.renewBefore: %s is not less than certificates.duration, %s" $c.renewBefore $c.duration) -}}
{{- end -}}
{{- $most := .Values.podDisruptionBudget.maxUnavailable -}}
{{- if and (not (kindIs "string" $most)) (gt (int64 $most) (int64 .Values.replicas)) -}}
{{- fail (printf "podDisruptionBudget.maxUnavailable: %d is more than replicas, %d" (int64 $most) (int64 .Values.replicas)) -}}
{{- end -}}
{{- end -}}

{{/* The seconds of a duration such as 1h30m. */}}
{{- define "weir.seconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+[hms]" . -1 -}}
{{- $count := regexFind "[0-9]+" . | int64 -}}
{{- $sum = add $sum (mul $count (ternary 3600 (ternary 60 1 (hasSuffix "m" .)) (hasSuffix "h" .))) -}}
{{- end -}}
{{- $sum -}}
{{- end -}}

{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ include "weir.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "weir.serviceAccount" -}}
{{- default (ternary (include "weir.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "weir.certificate" -}}
{{- include "weir.fullname" . }}-certificate
{{- end -}}

{{- define "weir.lease" -}}
weir-controller-leader-election
{{- end -}}

{{- define "weir.image" -}}
{{- include "weir.imageOf" (dict "root" . "image" .Values.image) -}}
{{- end -}}

{{- define "weir.imageOf" -}}
{{- $registry := default .image.registry (dig "imageRegistry" "" .root.Values.global) -}}
{{- $tag := ternary (printf "@%s" .image.digest) (printf ":%s" (default .root.Chart.AppVersion .image.tag)) (not (empty .image.digest)) -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .image.repository }}{{ $tag }}
{{- end -}}

{{/* The agents' pods are none of the replicas', which a Service selects by their labels. */}}
{{- define "weir.agentSelector" -}}
app.kubernetes.io/name: {{ include "weir.name" . }}-agent
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "weir.excluded" -}}
{{- append (default list .Values.webhook.excludeNamespaces) .Release.Namespace | uniq | toJson -}}
{{- end -}}

{{/* The kinds that Weir reads, by group: what the webhook is asked about and what is watched. */}}
{{- define "weir.policies" -}}
- {apiGroup: networking.k8s.io, resources: [networkpolicies]}
- {apiGroup: policy.networking.k8s.io, resources: [clusternetworkpolicies, adminnetworkpolicies, baselineadminnetworkpolicies]}
{{- range list "projectcalico.org" "crd.projectcalico.org" }}
- apiGroup: {{ . }}
  resources:
    - networkpolicies
    - globalnetworkpolicies
    - stagednetworkpolicies
    - stagedglobalnetworkpolicies
    - stagedkubernetesnetworkpolicies
    - tiers
    - networksets
    - globalnetworksets
    - hostendpoints
    - profiles
{{- end }}
{{- with .Values.webhook.foreign }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "weir.world" -}}
- {apiGroup: "", resources: [namespaces, nodes, pods, replicationcontrollers, serviceaccounts, services]}
- {apiGroup: apps, resources: [daemonsets, deployments, replicasets, statefulsets]}
- {apiGroup: batch, resources: [cronjobs, jobs]}
{{- end -}}

{{/* Who makes pods of workloads, and workloads of workloads, as a list of CEL. */}}
{{- define "weir.controllers" -}}
{{- $all := list "system:kube-controller-manager" -}}
{{- range list "cronjob" "daemon-set" "deployment" "job" "replicaset" "replication" "statefulset" -}}
{{- $all = append $all (printf "system:serviceaccount:kube-system:%s-controller" .) -}}
{{- end -}}
{{- toJson $all -}}
{{- end -}}

{{/* What all webhooks have in common. */}}
{{- define "weir.webhook" -}}
clientConfig:
  service:
    name: {{ include "weir.fullname" . }}
    namespace: {{ .Release.Namespace }}
    path: /review
    port: 443
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
namespaceSelector:
  matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: {{ include "weir.excluded" . }}}
{{- end -}}

{{/* The first of a list is the root, the others are fields of metadata. */}}
{{- define "weir.matchConditions" -}}
# What policies do and whom they mean stands in these fields; the rest is not asked about.
- name: something-changes
  expression: >-
    request.operation != "UPDATE" || object.?spec != oldObject.?spec
    {{- range rest . }} || object.metadata.?{{ . }} != oldObject.metadata.?{{ . }}{{ end }}
# It empties namespaces whose deletion was decided about already.
- name: not-the-namespace-controller
  expression: request.userInfo.username != "system:serviceaccount:kube-system:namespace-controller"
{{- with (first .).Values.webhook.matchConditions }}
{{ toYaml . }}
{{- end }}
{{- end -}}
