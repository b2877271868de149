#!/bin/bash
# The first process of the cluster's namespaces: starts all components of the node, then waits.
# `cluster down` kills it, which ends everything else.
set -euo pipefail
state=$1 cgroup=$2
: "${here:?}" "${cache:?}" "${node:?}"
export PATH=$cache/bin:$cache/root/usr/sbin:$cache/root/usr/bin:$PATH
export LD_LIBRARY_PATH=$cache/root/usr/lib/x86_64-linux-gnu:$cache/root/lib/x86_64-linux-gnu
# shellcheck source=config.sh
. "$here/config.sh"

private_mounts() {
    # Mounts of volumes must propagate between the node and its containers.
    mount --make-rshared /
    mount -t tmpfs -o mode=0755 node "$node"
    mkdir -p "$node"/{etcd,pki,containerd,kubelet,cni,layers}
    # Container tools write to these directories; keep the changes inside.
    local folder
    for folder in etc opt var; do
        mkdir -p "$node/layers/$folder" "$node/layers/$folder.work"
        mount -t overlay -o "lowerdir=/$folder,upperdir=$node/layers/$folder,workdir=$node/layers/$folder.work" "$folder" "/$folder"
    done
    mount -t tmpfs -o mode=0755 run /run
    # As on the nodes of CCE. The overlay hides what the machine may have there.
    rm -rf /var/lib/kubelet
    ln -s "$node/kubelet" /var/lib/kubelet
    echo '127.0.0.1 localhost node1' >/etc/hosts
}

# kubelet would set these for the whole machine. Let it read the values it wants instead.
settings() {
    local setting=0 name value
    while read -r name value; do
        [ -e "/proc/sys/$name" ] || continue
        setting=$((setting + 1))
        echo "$value" >"$node/setting.$setting"
        mount --bind "$node/setting.$setting" "/proc/sys/$name"
    done <<-END
	vm/overcommit_memory 1
	vm/panic_on_oom 0
	kernel/panic 10
	kernel/panic_on_oops 1
	kernel/keys/root_maxkeys 1000000
	kernel/keys/root_maxbytes 25000000
	END
}

network() {
    ip link set lo up
    ip link add cni0 type bridge
    ip addr add "$node_ip/24" dev cni0
    ip link set cni0 up
    # Lets processes on the node reach Services as well; kube-proxy rewrites the address.
    ip route add "$services" dev cni0
    echo 1 >/proc/sys/net/ipv4/ip_forward
}

cgroups() {
    local mount
    for mount in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e "$mount/cgroup.procs" ] && mkdir -p "$mount/$cgroup"
    done
    # On cgroup v1 a new cpuset has no CPUs and no memory nodes.
    local set=/sys/fs/cgroup/cpuset
    if [ -e "$set/$cgroup/cpuset.cpus" ]; then
        cat "$set/cpuset.cpus" >"$set/$cgroup/cpuset.cpus"
        cat "$set/cpuset.mems" >"$set/$cgroup/cpuset.mems"
    fi
}

start() { # name, command
    local name=$1
    shift
    "$@" >"$state/logs/$name" 2>&1 &
}

restart_forever() { # command; a test may kill it
    while true; do
        "$@" || true
        sleep 0.2
    done
}

until_ok() { # command
    local _
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "gave up waiting for: $*"
    return 1
}

private_mounts
settings
network
cgroups
certificates
configs

start etcd etcd --data-dir "$node/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start apiserver restart_forever kube-apiserver --etcd-servers http://127.0.0.1:2379 \
    --bind-address 0.0.0.0 --secure-port 6443 --advertise-address "$node_ip" \
    --tls-cert-file "$node/pki/apiserver.crt" --tls-private-key-file "$node/pki/apiserver.key" \
    --client-ca-file "$node/pki/ca.crt" \
    --kubelet-client-certificate "$node/pki/admin.crt" --kubelet-client-key "$node/pki/admin.key" \
    --service-account-issuer https://kubernetes.default.svc \
    --service-account-key-file "$node/pki/sa.pub" --service-account-signing-key-file "$node/pki/sa.key" \
    --service-cluster-ip-range "$services" --authorization-mode Node,RBAC \
    --enable-admission-plugins NodeRestriction --allow-privileged
start containerd containerd -c "$node/containerd.toml"
until_ok ctr --address "$node/containerd/sock" version
for archive in "$cache"/images/*.tar; do
    ctr --address "$node/containerd/sock" -n k8s.io images import --all-platforms "$archive"
done
until_ok kubectl --kubeconfig "$node/admin.conf" get --raw /readyz
start controllers kube-controller-manager --kubeconfig "$node/admin.conf" --leader-elect=false \
    --use-service-account-credentials --root-ca-file "$node/pki/ca.crt" \
    --service-account-private-key-file "$node/pki/sa.key"
start scheduler kube-scheduler --kubeconfig "$node/admin.conf" --leader-elect=false
start proxy kube-proxy --config "$node/proxy.yaml"
start kubelet kubelet --config "$node/kubelet.yaml" --kubeconfig "$node/kubelet.conf" \
    --hostname-override node1 --node-ip "$node_ip" --root-dir "$node/kubelet" -v=2

# While bash waits for a child, it reaps the orphans of containers.
while true; do sleep 3600; done
