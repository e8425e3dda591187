# syntax=docker/dockerfile:1
# One image for workers and for the one-shot commands. It holds the wheel and what the wheel needs, no source tree.

FROM python:3.13.11-slim-trixie AS build
WORKDIR /source
COPY . .
RUN python -m venv /opt/mercuria \
    && /opt/mercuria/bin/pip install --no-cache-dir --disable-pip-version-check .

FROM python:3.13.11-slim-trixie
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
