# A tag can move: for production builds, pass the image with its digest.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# A virtual environment with the service, its client and what they need of requirements/run.txt: no tools, tests or
# PostgreSQL.
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/run.txt requirements/
RUN pip install --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/commerce \
    && pip wheel --no-deps --require-hashes --wheel-dir /opt/wheels -r requirements/run.txt
# Copied after the locks, because these files change more often and would invalidate the layers above.
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY clients/console/schema.json clients/console/schema.json
COPY clients/openapi/openapi.json clients/openapi/openapi.json
COPY migrations migrations
COPY service service
# The extras of pyproject.toml that the image has, separated by commas: --build-arg EXTRAS= has none of them. All come
# from the wheels above, whose hashes were checked, so hadolint need not ask for versions. pip would only warn of an
# extra that does not exist.
ARG EXTRAS=http,metrics,relay
# hadolint ignore=DL3013
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . ./client \
    && pip --python /opt/commerce install --no-index --find-links /opt/wheels "commerce-service[${EXTRAS}]" \
    && IFS=, && for extra in ${EXTRAS}; do \
        grep -qx "Provides-Extra: ${extra}" /opt/commerce/lib/python*/site-packages/commerce_service-*.dist-info/METADATA \
            || { echo "EXTRAS: there is no extra ${extra}" >&2; exit 1; }; \
    done

FROM ${PYTHON_IMAGE}
# What is built, as https://specs.opencontainers.org/image-spec/annotations/ names it. The version is that of
# pyproject.toml; only the build knows the others: --build-arg REVISION=$(git rev-parse HEAD) --build-arg SOURCE=...
ARG PYTHON_IMAGE
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="commerce" \
    org.opencontainers.image.description="User and order backend served over gRPC and stored in PostgreSQL" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0" \
    org.opencontainers.image.base.name="${PYTHON_IMAGE}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.source="${SOURCE}"
COPY --from=builder /opt/commerce /opt/commerce
# COMMERCE_HOST: the default, loopback, cannot be reached from outside the container. So the server needs TLS and
# identities, or settings that say it needs none (docs/security.md); otherwise it refuses to start.
ENV PATH=/opt/commerce/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COMMERCE_HOST=0.0.0.0
# A number, so that Kubernetes can verify that the user is not root (runAsNonRoot).
# It writes no file and needs no capability, so run it with a read-only root file system and with all capabilities
# dropped (docs/operations.md, deploy/kubernetes).
USER 65532:65532
WORKDIR /
# gRPC, HTTP with COMMERCE_HTTP_PORT=50080 and COMMERCE_HTTP_HOST=0.0.0.0, and metrics with COMMERCE_METRICS_PORT=50090,
# COMMERCE_METRICS_HOST=0.0.0.0 and COMMERCE_METRICS_OPEN=true.
EXPOSE 50051 50080 50090
# SIGTERM drains the server. No HEALTHCHECK: orchestrators, such as Kubernetes, call grpc.health.v1.Health, or run
# `commerce health` where the server has TLS.
STOPSIGNAL SIGTERM
ENTRYPOINT ["commerce"]
CMD ["serve"]
