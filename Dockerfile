# syntax=docker/dockerfile:1
# One image for workers and for the one-shot commands. It holds the wheel and what the wheel needs, no source tree.
# What it needs is what requirements/base.txt locks: no server, since the compose file brings those.

FROM python:3.13.11-slim-trixie@sha256:2b9c9803c6a287cafa0a8c917211dddd23dcd2016f049690ee5219f5d3f1636e AS build
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source
# Installed anew only when the locks change.
COPY requirements requirements
RUN python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --no-deps -r requirements/build.txt \
    && python -m venv /opt/mercuria \
    && /opt/mercuria/bin/pip install --require-hashes --no-deps -r requirements/base.txt
COPY . .
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/mercuria/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/mercuria/bin/pip check

FROM python:3.13.11-slim-trixie@sha256:2b9c9803c6a287cafa0a8c917211dddd23dcd2016f049690ee5219f5d3f1636e
LABEL org.opencontainers.image.title="Mercuria" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --system --gid 10001 mercuria && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/mercuria mercuria \
    && install -d -o mercuria -g mercuria -m 0700 /var/lib/mercuria
COPY --from=build /opt/mercuria /opt/mercuria
COPY --chmod=0755 deploy/container-entry /usr/local/bin/container-entry
ENV PATH=/opt/mercuria/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MERCURIA_DATA_DIR=/var/lib/mercuria \
    MERCURIA_HTTP_HOST=0.0.0.0 \
    MERCURIA_HTTP_PORT=6066
USER 10001:10001
WORKDIR /var/lib/mercuria
VOLUME /var/lib/mercuria
EXPOSE 6066
# A worker that reads its tables is not sick: whether it gets requests is what /health/ready says.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:6066/health/live', timeout=4)"]
STOPSIGNAL SIGTERM
# Replaces itself by the command, which gets the signals; `init: true` in the compose file reaps its children.
ENTRYPOINT ["container-entry"]
CMD ["mercuria", "worker"]
