#!/bin/bash
# Runs the real CSI driver inside the cluster's namespaces, as a process on the node, with the same
# settings as its chart has with this chart's values. Its socket is
# <kubelet root>/plugins/csi-secrets-store/csi.sock; the caller registers it with kubelet.
set -euo pipefail
binary=$1
: "${DEW_CLUSTER_NODE:?}" "${DEW_KUBELET_ROOT:?}" "${state:?}" "${here:?}"

kubectl apply -f "$here/crds.yaml" -f "$here/driver.yaml" >/dev/null
# The driver exits at once if its resources are not served yet.
kubectl wait --for=condition=Established --timeout=30s crd \
    secretproviderclasses.secrets-store.csi.x-k8s.io \
    secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io >/dev/null
socket=$DEW_KUBELET_ROOT/plugins/csi-secrets-store/csi.sock
mkdir -p "$(dirname "$socket")"
setsid "$binary" --kubeconfig "$DEW_CLUSTER_NODE/driver.conf" --endpoint "unix://$socket" --nodeid node1 \
    --provider-volume /var/run/secrets-store-csi-providers \
    --additional-provider-volume-paths "$DEW_CLUSTER_NODE/none" \
    --enable-secret-rotation=true --rotation-poll-interval=1s \
    --metrics-addr 127.0.0.1:18095 -v=5 >>"$state/logs/driver" 2>&1 </dev/null &
echo $! >"$DEW_CLUSTER_NODE/driver.pid"
for _ in $(seq 100); do
    [ -S "$socket" ] && exit
    sleep 0.1
done
tail "$state/logs/driver" >&2
exit 1
