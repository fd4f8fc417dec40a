# docker build -t acequia . && docker run -v "$PWD/acequia.toml:/etc/acequia/acequia.toml:ro" -p 5432:5432 acequia
FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked && strip target/release/acequia && mkdir -m 0700 /run/acequia

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/acequia /usr/bin/acequia
# For the Unix socket, which `acequia status` uses.
COPY --from=build --chown=65532:65532 /run/acequia /run/acequia
USER 65532:65532
# By default, the access log goes to standard output. `docker stop` drains: give `docker run` a `--stop-timeout` that is
# longer than `drain_delay` and `drain_timeout` together.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s CMD ["/usr/bin/acequia", "status", "-c", "/etc/acequia/acequia.toml"]
ENTRYPOINT ["/usr/bin/acequia"]
CMD ["run", "-c", "/etc/acequia/acequia.toml"]
