# A tag moves: where images are built for production, pass the image with the digest that its registry shows.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

# An environment with what requirements/run.txt locks, the service and its client: no tool, no test, no PostgreSQL.
FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/build.txt requirements/run.txt requirements/
RUN pip install --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/commerce \
    && pip --python /opt/commerce install --require-hashes -r requirements/run.txt
# Later than the locks, because it changes more often.
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY migrations migrations
COPY service service
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /opt/wheels . ./client \
    && pip --python /opt/commerce install --no-index --no-deps /opt/wheels/*.whl

FROM ${PYTHON_IMAGE}
COPY --from=builder /opt/commerce /opt/commerce
# COMMERCE_HOST: the default, loopback, cannot be reached from outside a container. What may reach it is for the
# network around it to say; the server warns of that when it starts.
ENV PATH=/opt/commerce/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    COMMERCE_HOST=0.0.0.0
# A number, so that Kubernetes can tell that it is not root.
USER 65532:65532
WORKDIR /
EXPOSE 50051
# SIGTERM drains. No HEALTHCHECK: whoever runs the container asks grpc.health.v1.Health, as Kubernetes does.
STOPSIGNAL SIGTERM
ENTRYPOINT ["commerce"]
CMD ["serve"]
