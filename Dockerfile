# tilewhisper's server on the CPU, with the weights of base.
#
#   docker build -t tilewhisper .
#   docker run --rm -p 127.0.0.1:8000:8000 tilewhisper
#
# docs/serving.md has the rest. Podman takes the same commands.

FROM python:3.13-slim-trixie AS build
# The distribution's newest compiler is wanted: versions are not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ \
 && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/tilewhisper
ENV PATH=/opt/tilewhisper/bin:$PATH
# A layer of its own, which a change of the sources leaves alone; from the index whose torch is without CUDA.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu 'torch>=2.13'
WORKDIR /src
COPY . .
ARG EXTRAS=serve,base
# The kernels are compiled for every instruction set, and choose one at run time: the image may move between machines.
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[${EXTRAS}]" \
 && HOME=/built tilewhisper build

FROM python:3.13-slim-trixie
RUN useradd --create-home --uid 10001 tilewhisper
COPY --from=build /opt/tilewhisper /opt/tilewhisper
COPY --from=build --chown=tilewhisper:tilewhisper /built/.cache /home/tilewhisper/.cache
ENV PATH=/opt/tilewhisper/bin:$PATH
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["tilewhisper"]
# All addresses of the container: which of the host's lead to it is for -p to say.
CMD ["serve", "--host", "0.0.0.0"]
