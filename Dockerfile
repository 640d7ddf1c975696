# syntax=docker/dockerfile:1
# The engine in a container: docs/start/docker.md
#   docker build -t neurovocal .
# For computers with Intel and ARM processors (a Raspberry Pi with a 64-bit system):
#   docker buildx build --platform linux/amd64,linux/arm64 -t neurovocal .

# The wheel is Python alone: it is made once, on the machine that builds.
FROM --platform=$BUILDPLATFORM python:3.13-slim AS wheel
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir build==1.6.1 \
    && python -m build --wheel --outdir /wheel .

FROM python:3.13-slim
# What a sound card and its server need; ffmpeg for cameras and web radio is an argument:
#   --build-arg SYSTEM=ffmpeg
ARG SYSTEM=""
# hadolint ignore=DL3008,SC2086
RUN apt-get update \
    && apt-get install --yes --no-install-recommends \
        libportaudio2 libasound2-plugins ${SYSTEM} \
    && rm -rf /var/lib/apt/lists/*
ARG EXTRAS="mqtt,parquet,privacy,prometheus"
COPY constraints.txt /tmp/constraints.txt
RUN --mount=type=bind,from=wheel,source=/wheel,target=/wheel \
    WHEEL="$(echo /wheel/*.whl)" \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "${WHEEL}[${EXTRAS}]"
# Not root; the group that sound cards belong to. /data is what a run writes.
RUN useradd --uid 10001 --groups audio --home-dir /data --create-home neurovocal
# Its number, which Kubernetes can tell from root.
USER 10001
WORKDIR /data
VOLUME /data
ENV PYTHONUNBUFFERED=1
# Statistics come once a second while the engine hears something, or waits for it.
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s --retries=3 \
    CMD ["neurovocal", "listen", "--kinds", "stats", "--count", "1", "--timeout", "10"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["neurovocal"]
CMD ["demo", "--plain"]
