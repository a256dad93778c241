# syntax=docker/dockerfile:1

# Flotilla on an empty base: one static binary, no shell, not root.
#
#   docker build -t flotilla .
#   docker run -p 7070:7070 -p 9092:9092 -v flotilla:/var/lib/flotilla flotilla broker --id 1 --bootstrap-expect 1 --advertise-host localhost

FROM golang:1.26 AS build
WORKDIR /src
# The modules change less often than the code, so they get a layer of their own.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
ARG COMMIT=
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION} -X main.commit=${COMMIT}" -o /out/flotilla ./cmd/flotilla
# An empty folder to become the data directory: a new volume takes over its owner, and the empty base has no chown.
RUN mkdir -p /out/data

FROM scratch
LABEL org.opencontainers.image.title="Flotilla" \
      org.opencontainers.image.description="A Raft-replicated distributed log" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/flotilla /flotilla
COPY --from=build --chown=65532:65532 /out/data /var/lib/flotilla
USER 65532:65532
ENV FLOTILLA_BROKER_DATA_DIR=/var/lib/flotilla
VOLUME ["/var/lib/flotilla"]
# gRPC for clients; other brokers; gossip over TCP and UDP; Kafka clients.
EXPOSE 7070 7071 7072 7072/udp 9092
# A broker gets ten seconds to hand its leaderships over before Docker kills it; 20 s is the program's own bound.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=3 CMD ["/flotilla", "health", "--timeout", "2s"]
ENTRYPOINT ["/flotilla"]
CMD ["broker"]
