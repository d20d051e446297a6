#!/bin/sh
# Apply the definitions of the operators' resources that k8s/ uses to kubectl's current cluster, without the operators:
#   scripts/operator_definitions.sh
set -eu

source=https://raw.githubusercontent.com
for path in \
    kubernetes-sigs/gateway-api/v1.3.0/config/crd/standard/gateway.networking.k8s.io_httproutes.yaml \
    kedacore/keda/v2.17.2/config/crd/bases/keda.sh_scaledobjects.yaml \
    prometheus-operator/prometheus-operator/v0.83.0/example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml \
    prometheus-operator/prometheus-operator/v0.83.0/example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml \
    kubeflow/training-operator/v1.9.3/manifests/base/crds/kubeflow.org_pytorchjobs.yaml \
    kserve/kserve/v0.15.2/config/crd/full/serving.kserve.io_inferenceservices.yaml; do
    # On the server's side, because an annotation with the whole definition would be too long.
    kubectl apply --server-side --filename "$source/$path"
done
