# syntax=docker/dockerfile:1
# The provider's image: one binary, the C library it is linked with, CA roots; no shell.
#
#   docker build --build-arg SOURCE_DATE_EPOCH=1767225600 \
#     --output type=image,name=dew-provider:0.1.0,rewrite-timestamp=true .
#
# The build is reproducible: the same commit produces the same layers. tests/cluster/image builds this
# image without Docker.

# The oldest Debian whose C library has DNS built in, so that nothing is loaded at run time.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY proto proto
COPY src src
# Keeps paths of the build machine out of the binary.
ENV RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo"
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --no-default-features --bin dew-provider
# glibc rather than musl, so that names resolve as for other programs on the node.
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
# Runs as root, because the driver's socket directory belongs to root. The chart drops all capabilities.
ENTRYPOINT ["/usr/bin/dew-provider"]
CMD ["serve"]
