# shellcheck shell=bash disable=SC2154
# Sourced by `cluster`: provides the programs it needs in "$cache", outside the repository.
#
# Kubernetes and helm are built from Go modules, once, in 8 to 12 minutes. The rest are Debian
# packages, unpacked but not installed, so that no service starts and the machine stays unchanged.
# Needs Debian or Ubuntu with apt-get, Go, Python 3, openssl, iproute2 and util-linux.

kubernetes=v1.34.4
helm=v3.19.5
commands=(kube-apiserver kube-controller-manager kube-proxy kube-scheduler kubectl kubelet)
packages=(etcd-server containerd runc libseccomp2 containernetworking-plugins busybox-static
    nftables libnftables1 libnftnl11 libxtables12 libmnl0 libjansson4 libedit2 libgmp10 libbsd0 libmd0)

# Runs a step unless its stamp shows that it has run with the same inputs.
once() { # name, inputs, command
    local name=$1 inputs=$2 began=$SECONDS
    [ "$(cat "$cache/$name.stamp" 2>/dev/null)" != "$inputs" ] || return 0
    "$3"
    printf '%s\n' "$inputs" >"$cache/$name.stamp"
    echo "cluster: $name: $((SECONDS - began)) s" >&2
}

tools() {
    mkdir -p "$cache/bin"
    once debian "${packages[*]}" debian_packages
    once helm "$helm $kubernetes" build_helm
    once kubernetes "$(cat "$here"/tools/go.* | sha256sum)" build_kubernetes
    once images "$(cat "$here/tools.sh" "$here/image" | sha256sum)" base_images
}

debian_packages() {
    local debs=$cache/debs
    rm -rf "$debs" "$cache/root"
    mkdir -p "$debs" "$cache/root"
    apt-get update -qq
    # apt's sandbox user cannot write to a home directory and would print a warning.
    (cd "$debs" && apt-get -qq -o APT::Sandbox::User=root download "${packages[@]}")
    local deb
    for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$cache/root"; done
    rm -rf "$debs"
}

build_kubernetes() {
    local version=k8s.io/component-base/version.gitVersion=$kubernetes
    (cd "$here/tools" && CGO_ENABLED=0 go build -mod=readonly -trimpath -ldflags "-s -w -X $version" \
        -o "$cache/bin/" "${commands[@]/#/k8s.io/kubernetes/cmd/}")
}

build_helm() {
    # Not in the module of Kubernetes, because the two need different versions of the same libraries.
    # Without these flags, helm assumes Kubernetes 1.20 when it renders without a cluster.
    local package flags="-s -w" minor=${kubernetes#v1.}
    for package in chartutil lint/rules; do
        flags+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=${minor%.*}"
    done
    GOBIN=$cache/bin CGO_ENABLED=0 go install -trimpath -ldflags "$flags" "helm.sh/helm/v3/cmd/helm@$helm"
}

# Images for the test's pods: Debian's static busybox, under the name that the examples use.
base_images() {
    local root=$cache/busybox
    rm -rf "$root"
    mkdir -p "$root/bin" "$root/tmp" "$root/etc" "$cache/images"
    chmod 1777 "$root/tmp"
    cp "$cache/root/bin/busybox" "$root/bin/"
    local applet
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0::/:/bin/sh' >"$root/etc/passwd"
    "$here/image" archive --root "$root" --name docker.io/library/busybox:1.36 --cmd /bin/sh \
        --out "$cache/images/busybox.tar"
    "$here/image" archive --root "$root" --name localhost/pause:1 --cmd /bin/sleep --cmd 2147483647 \
        --out "$cache/images/pause.tar"
}
