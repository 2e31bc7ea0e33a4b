# SPDX-License-Identifier: Apache-2.0
# One image for both programs. The Kubernetes objects set the command and the user.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/ ./cmd/controller ./cmd/agent

# The programs are static. They use TLS only with the API server, whose CA certificate is in the pod's volume.
FROM scratch
LABEL org.opencontainers.image.title="xdp-operator" \
      org.opencontainers.image.licenses="Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)"
COPY LICENSE NOTICE /licenses/
COPY --from=build /out/controller /out/agent /
USER 65532:65532
ENTRYPOINT ["/controller"]
