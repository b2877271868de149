# syntax=docker/dockerfile:1
# The provider's image: one binary, the C library it is linked with, CA roots; no shell.
#
#   docker build --build-arg SOURCE_DATE_EPOCH=1767225600 \
#     --output type=image,name=dew-provider:0.1.0,rewrite-timestamp=true .
#
# The same commit gives the same layers. tests/cluster/image makes this image without Docker.

# The oldest Debian whose C library has DNS built in, so that nothing is loaded at run time.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY proto proto
COPY src src
# The demo shows one of them.
COPY manifests/examples manifests/examples
# What the manifest names must be there to be read, and is not built.
RUN mkdir -p tests/bench tests/cluster && touch tests/main.rs tests/bench/main.rs tests/cluster/main.rs
# Paths of the build machine stay out of the binary.
ENV RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --bin dew-provider
# Glibc rather than musl, so that names resolve as they do for other programs of the node.
RUN set -eu; \
    binary=target/release/dew-provider; \
    strip "$binary"; \
    install -D -m 0755 "$binary" /image/usr/bin/dew-provider; \
    for library in $(ldd "$binary" | grep -o '/[^ ]*'); do \
        install -D -m 0755 "$library" "/image$library"; \
    done; \
    install -D -m 0644 /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ca-certificates.crt; \
    echo 'hosts: files dns' >/image/etc/nsswitch.conf; \
    chmod 0644 /image/etc/nsswitch.conf; \
    find /image -exec touch -h -d @1767225600 {} +

FROM scratch
COPY --from=build /image/ /
ENV PATH=/usr/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# As root: the driver's socket folder is root's. The chart takes every capability away.
ENTRYPOINT ["/usr/bin/dew-provider"]
CMD ["serve"]
