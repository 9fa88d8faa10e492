# Each program as an image of one static binary and nothing else; see docs/DOCKER.md.
#   docker build --target producer --tag event-pipeline-producer .
ARG RUST_IMAGE=rust:1.95-slim-bookworm
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
RUN scripts/static.sh >/tmp/paths \
 && mkdir --parents /image/etc/ssl/certs /image/var/log/event-pipeline /programs \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && cp $(cat /tmp/paths) /programs/

FROM scratch AS base
# For Kafka, PostgreSQL and S3 with TLS.
COPY --from=build /image/etc /etc
ENV PATH=/usr/local/bin
USER 65532:65532
STOPSIGNAL SIGTERM

FROM base AS producer
COPY --from=build /programs/producer /usr/local/bin/
ENV HTTP_ADDR=0.0.0.0:5000
EXPOSE 5000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["producer", "--health"]
ENTRYPOINT ["producer"]

FROM base AS consumer
COPY --from=build /programs/consumer /usr/local/bin/
# A new named volume takes its owner from here.
COPY --from=build --chown=65532:65532 /image/var/log/event-pipeline /var/log/event-pipeline
ENV METRICS_ADDR=0.0.0.0:5001 LOG_FILE=/var/log/event-pipeline/events.log
EXPOSE 5001
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["consumer", "--health"]
ENTRYPOINT ["consumer"]

FROM base AS live
COPY --from=build /programs/live /usr/local/bin/
# Beyond the loopback address, it also needs LIVE_TOKEN.
ENV LIVE_ADDR=0.0.0.0:5002 LIVE_HOSTS=localhost
EXPOSE 5002
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["live", "--health"]
ENTRYPOINT ["live"]

FROM base AS simulate
COPY --from=build /programs/simulate /usr/local/bin/
ENTRYPOINT ["simulate"]
