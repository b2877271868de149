# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by node.sh: creates keys and configuration files of the node in "$node".

node_ip=10.244.0.1
pods=10.244.0.0/24
services=10.96.0.0/16
service_ip=10.96.0.1

certificate() { # name, subject, names
    local name=$node/pki/$1
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$name.key" -out "$name.csr" -subj "$2"
    openssl x509 -req -in "$name.csr" -CA "$node/pki/ca.crt" -CAkey "$node/pki/ca.key" -CAcreateserial \
        -days 2 -out "$name.crt" -extfile <(echo "subjectAltName=$3")
}

kubeconfig() { # name, which is also that of the certificate
    cat >"$node/$1.conf" <<-END
	apiVersion: v1
	kind: Config
	clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: "$node/pki/ca.crt"}}]
	users: [{name: u, user: {client-certificate: "$node/pki/$1.crt", client-key: "$node/pki/$1.key"}}]
	contexts: [{name: x, context: {cluster: c, user: u}}]
	current-context: x
	END
}

certificates() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
        -keyout "$node/pki/ca.key" -out "$node/pki/ca.crt"
    certificate apiserver /CN=kube-apiserver \
        "DNS:kubernetes.default.svc,DNS:kubernetes,DNS:localhost,IP:127.0.0.1,IP:$node_ip,IP:$service_ip"
    certificate admin /O=system:masters/CN=admin DNS:admin
    certificate kubelet /O=system:nodes/CN=system:node:node1 "DNS:node1,IP:$node_ip"
    # The driver runs as a process on the node, with the permissions of its ServiceAccount.
    certificate driver /CN=system:serviceaccount:kube-system:secrets-store-csi-driver DNS:driver
    openssl genrsa -out "$node/pki/sa.key" 2048
    openssl rsa -in "$node/pki/sa.key" -pubout -out "$node/pki/sa.pub"
    kubeconfig admin
    kubeconfig kubelet
    kubeconfig driver
}

configs() {
    cat >"$node/cni/10-bridge.conflist" <<-END
	{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
	  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "ipam": {
	    "type": "host-local", "ranges": [[{"subnet": "$pods"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
	END
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE the score cannot be lowered, and every sandbox
    # would fail with "can't get final child's PID from pipe: EOF".
    cat >"$node/containerd.toml" <<-END
	version = 2
	root = "$node/containerd/root"
	state = "$node/containerd/state"
	[grpc]
	  address = "$node/containerd/sock"
	[plugins."io.containerd.grpc.v1.cri"]
	  sandbox_image = "localhost/pause:1"
	  restrict_oom_score_adj = true
	  [plugins."io.containerd.grpc.v1.cri".cni]
	    bin_dir = "$cache/root/usr/lib/cni"
	    conf_dir = "$node/cni"
	END
    # failCgroupV1: kubelet 1.34 still runs on cgroup v1 if this is false.
    cat >"$node/kubelet.yaml" <<-END
	apiVersion: kubelet.config.k8s.io/v1beta1
	kind: KubeletConfiguration
	authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: "$node/pki/ca.crt"}}
	authorization: {mode: Webhook}
	cgroupDriver: cgroupfs
	cgroupRoot: /$cgroup
	containerRuntimeEndpoint: unix://$node/containerd/sock
	tlsCertFile: $node/pki/kubelet.crt
	tlsPrivateKeyFile: $node/pki/kubelet.key
	volumePluginDir: $node/kubelet/exec
	failSwapOn: false
	failCgroupV1: false
	clusterDNS: []
	resolvConf: ""
	evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
	END
    # masqueradeAll: pods share a bridge, so replies between pods would otherwise bypass the rules.
    # conntrack: its size belongs to the machine, not to the namespace.
    cat >"$node/proxy.yaml" <<-END
	apiVersion: kubeproxy.config.k8s.io/v1alpha1
	kind: KubeProxyConfiguration
	mode: nftables
	hostnameOverride: node1
	clientConnection: {kubeconfig: "$node/admin.conf"}
	conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
	nftables: {masqueradeAll: true}
	END
}
